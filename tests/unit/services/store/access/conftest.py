"""The users of Redis that `sluice acl` makes, on the session's Valkey."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from config.canary import canary_stream
from config.settings import RedisSettings
from config.sources import RedisSource
from services.store.access.acl import AclUser, acl_file, acl_users
from services.store.connection import SyncRedis, connect_sync

SOURCES = [
    RedisSource(channel="sluice.events", stream="sluice.events"),
    RedisSource(list="legacy-queue", type="legacy.message"),
    RedisSource(stream="or[d]ers"),
    RedisSource(channel="orders.*", pattern=True),
]


@pytest.fixture
def users(valkey_url: str) -> Iterator[dict[str, AclUser]]:
    """On the session's Valkey; ``default`` stays as it is."""
    made = {user.name: user for user in acl_users(SOURCES, inner=canary_stream().values())}
    with connect_sync(valkey_url, RedisSettings()) as admin:
        for line in acl_file(made.values()).splitlines():
            if not line.startswith("user default "):
                admin.execute_command("ACL", "SETUSER", *line.split()[1:])
        yield made
        admin.execute_command("ACL", "DELUSER", *made)
        admin.delete(*admin.scan_iter("rq:*"), *admin.scan_iter("sluice:executor:*"), "test:nothing")
        admin.delete("sluice.events", "legacy-queue", "or[d]ers", "sluice:journal", "sluice.canary", "test:others")


def as_user(url: str, user: AclUser) -> SyncRedis:
    return connect_sync(url, RedisSettings(username=user.name, password=user.password))
