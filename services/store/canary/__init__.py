"""Records of the canary."""
