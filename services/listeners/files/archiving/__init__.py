"""Moves or deletes files when their events are finished."""
