"""From decisions to flow runs: queues are read, runs created in bulk and announced."""
