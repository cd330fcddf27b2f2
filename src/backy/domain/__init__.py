"""Floor 1: what backups are, as pure values and functions; no file is opened here."""
