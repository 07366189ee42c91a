"""The state of rules in Redis: windows, limits used, parked events."""
