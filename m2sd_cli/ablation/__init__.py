"""Ablation of the method: many runs that train different parts of it, and one table of results."""
