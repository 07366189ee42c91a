"""Parquet and Arrow, and their types as databases know them."""
