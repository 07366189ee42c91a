"""Types of columns, found or asked for by a contract; conversions and constraints of their values."""
