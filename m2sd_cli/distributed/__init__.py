"""Several processes at one task: the process group, torchrun, shared batch norm."""
