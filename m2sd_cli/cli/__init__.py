"""The command line: a module for each command, which turns options into a call and prints the result."""
