"""Checks this machine, its settings and the servers for problems."""
