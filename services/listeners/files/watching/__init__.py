"""The watched directory: what the system announces, and whether it can be trusted to."""
