"""Flow files: which have changed, whether they import, and which libraries they need."""
