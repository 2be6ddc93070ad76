"""Measurement of a machine: throughput of training and of features, and the time of a command from start to end."""
