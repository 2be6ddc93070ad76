"""Images: their places, reading them, and batches of them. No module imports one of another folder."""
