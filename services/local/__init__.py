"""One machine: `sluice up`, the servers that it brings along, and their end."""
