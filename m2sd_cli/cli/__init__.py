"""The commands: options in, typed functions called, results printed; no torch to show help."""
