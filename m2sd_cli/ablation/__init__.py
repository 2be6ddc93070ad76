"""The parts of the method against one another: many runs of the same budget, and one table of what they came to."""
