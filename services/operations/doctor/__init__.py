"""Looks for what is wrong with this machine, its settings and the servers."""
