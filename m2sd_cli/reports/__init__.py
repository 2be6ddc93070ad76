"""Figures of a trained chain: metrics, evaluation, tables."""
