"""Backup of a running installation, and restore."""
