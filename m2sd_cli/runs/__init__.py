"""The run folder: an append-only chain of sessions, each a JSON manifest and a safetensors checkpoint."""
