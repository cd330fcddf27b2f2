"""Floor 3: the verbs, which introduce repository, source and target to each other."""
