"""Copies of a running installation, and installations out of them."""
