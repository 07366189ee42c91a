"""What Sluice keeps in Redis: each module here owns its keys."""
