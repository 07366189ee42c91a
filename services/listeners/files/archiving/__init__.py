"""After the runs: files are moved to where they belong."""
