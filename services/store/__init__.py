"""What Sluice keeps in Redis: each module here owns its keys."""

from services.store import redis_py as redis_py
