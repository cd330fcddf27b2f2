"""Floor 2: where restores go; a stranger to `repository` and `source`."""
