"""The process of one flow run: claim, load, run."""
