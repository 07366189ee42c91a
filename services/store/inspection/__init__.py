"""What stands under the keys of Sluice: found, looked at, set aside where it cannot be read."""
