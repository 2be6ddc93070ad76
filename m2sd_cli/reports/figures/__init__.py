"""Figures as hand-written SVG, a module each: a pure function of what it shows, which returns the image as text."""
