"""Reads the file system: scans of directories, and the examination of one file."""
