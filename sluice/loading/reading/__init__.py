"""Reads a dropped file as bytes, unpacked within its budget, and defines what every reader returns."""
