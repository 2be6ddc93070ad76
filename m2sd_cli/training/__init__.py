"""Stages 1, 2 and 3 as work on a run folder: the loop, precision, resuming."""
