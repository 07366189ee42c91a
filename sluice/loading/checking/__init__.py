"""Rows held against what they must be: conversions and constraints, repeats, counts; the bad ones are put aside."""
