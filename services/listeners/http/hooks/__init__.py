"""Webhooks of other systems: their signatures, and the events that they become."""
