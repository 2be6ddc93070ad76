"""Figures as hand-written SVG, a module each: a pure function of data, which returns the image as text."""
