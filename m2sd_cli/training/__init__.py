"""The training of stages 1 and 2: objectives, the loop, precision, saving and resuming."""
