"""Delimited text: finding its dialect from its beginning, and reading its records in batches."""
