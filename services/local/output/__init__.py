"""The output of the roles of `sluice up`."""
