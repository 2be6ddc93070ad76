"""Images: where they are, how they are read, and how they become batches. Imports nothing of the other rooms."""
