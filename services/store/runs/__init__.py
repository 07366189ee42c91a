"""Flow runs in Redis: decided and not yet created, created, executed."""
