"""Ablation of the method: many runs on one budget that train different parts of it, and one table of results."""
