"""Parquet and Arrow files, and their types as databases have them."""
