"""The scheduler: decides what runs now and starts it as child processes."""
