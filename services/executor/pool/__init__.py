"""The processes of the executor: fork server, slots, and the processes of runs as a slot sees them."""
