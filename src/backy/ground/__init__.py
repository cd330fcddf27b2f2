"""Floor 0: what knows the operating system and nothing of backups."""
