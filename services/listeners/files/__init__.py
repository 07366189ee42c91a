"""The watched folder: what arrives in it becomes events, each version of each file once."""
