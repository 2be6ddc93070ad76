"""The commands: options in, typed functions called, results printed. No tensor arithmetic, and no torch to show help."""
