"""The HTTP listener: events and signals by POST, health and metrics by GET."""
