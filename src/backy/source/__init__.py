"""Floor 2: where images come from; a stranger to `repository` and `target`."""
