"""A dropped file as bytes: unpacked within its budget, and what every reader of a format hands on."""
