"""What is kept of the canary."""
