"""One machine: `sluice up` and the servers that it starts and stops."""
