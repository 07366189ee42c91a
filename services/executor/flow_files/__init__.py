"""The files that hold flows: which have changed, what they import."""
