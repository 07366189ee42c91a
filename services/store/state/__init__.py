"""What Redis holds as a whole."""
