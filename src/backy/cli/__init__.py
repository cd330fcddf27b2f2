"""Floor 5: the command line, one command a file."""
