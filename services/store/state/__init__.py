"""What Redis holds as a whole: its version, and a copy of it."""
