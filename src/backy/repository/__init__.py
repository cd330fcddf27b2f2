"""Floor 2: the one package that knows paths on disk; a stranger to `source` and `target`."""
