"""What values of a column are and must be: types found or asked for, conversions, constraints."""
