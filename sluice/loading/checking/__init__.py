"""Checks of rows: conversions, constraints, repeated values, counts; bad rows are put into a file of their own."""
