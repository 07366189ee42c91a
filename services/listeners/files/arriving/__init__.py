"""Decides which files found are complete and new, and announces them as events."""
