"""Work of several processes: the process group, torchrun, shared batch norm."""
