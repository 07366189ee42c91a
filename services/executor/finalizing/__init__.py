"""What is done for runs whose process has ended without reporting a final state."""
