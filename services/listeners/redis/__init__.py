"""Listeners on Redis: pub/sub channels, streams and lists."""

import services.store  # noqa: F401 - it imports redis-py, without what that would import in vain
