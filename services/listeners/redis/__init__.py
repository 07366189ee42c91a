"""Listeners on Redis: pub/sub channels, streams and lists."""
