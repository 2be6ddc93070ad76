"""What a machine does: throughput of training and of features, and how long a command takes from start to end."""
