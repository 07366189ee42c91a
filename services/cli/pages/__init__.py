"""Output of commands that is more than one table."""
