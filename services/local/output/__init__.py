"""What the roles of `sluice up` write."""
