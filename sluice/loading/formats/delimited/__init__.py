"""Delimited text: its dialect found by evidence, its records in batches."""
