"""The publisher's user can publish and do nothing else; a role's user cannot touch what is not Sluice's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import NoPermissionError
from typer.testing import CliRunner

from config.settings import RedisSettings
from config.sources import RedisSource
from events.errors import ConfigError
from services.cli import app
from services.store.access.acl import ROLE_RULES, AclUser, acl_file, acl_users
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
    made = {user.name: user for user in acl_users(SOURCES)}
    with connect_sync(valkey_url, RedisSettings()) as admin:
        for line in acl_file(made.values()).splitlines():
            if not line.startswith("user default "):
                admin.execute_command("ACL", "SETUSER", *line.split()[1:])
        yield made
        admin.execute_command("ACL", "DELUSER", *made)
        admin.delete("sluice.events", "legacy-queue", "or[d]ers", "sluice:journal", "test:others")


def as_user(url: str, user: AclUser) -> SyncRedis:
    return connect_sync(url, RedisSettings(username=user.name, password=user.password))


PUBLISHING = [
    ["XADD", "sluice.events", "*", "event", "{}"],
    ["XADD", "or[d]ers", "*", "event", "{}"],
    ["RPUSH", "legacy-queue", "{}"],
    ["PUBLISH", "sluice.events", "{}"],
    ["PUBLISH", "orders.new", "{}"],
]
FORBIDDEN_TO_PUBLISHERS = [
    ["XADD", "sluice:journal", "*", "event", "{}"],
    ["XADD", "orders", "*", "event", "{}"],
    ["XADD", "ord", "*", "event", "{}"],
    ["RPUSH", "rq:queue:sluice-runs", "x"],
    ["PUBLISH", "sluice.resume", "{}"],
    ["XRANGE", "sluice.events", "-", "+"],
    ["XLEN", "sluice.events"],
    ["LRANGE", "legacy-queue", "0", "-1"],
    ["DEL", "sluice.events"],
    ["GET", "sluice:installation"],
    ["KEYS", "*"],
    ["SCAN", "0"],
    ["SUBSCRIBE", "sluice.events"],
    ["EVAL", "return redis.call('GET', 'sluice:tokens')", "0"],
    ["FLUSHALL"],
    ["CONFIG", "GET", "*"],
    ["ACL", "LIST"],
    ["SYNC"],
]


def test_the_publisher_can_publish_and_nothing_else(valkey_url: str, users: dict[str, AclUser]) -> None:
    with as_user(valkey_url, users["sluice-publisher"]) as publisher:
        for command in PUBLISHING:
            publisher.execute_command(*command)
        allowed = []
        for command in FORBIDDEN_TO_PUBLISHERS:
            try:
                publisher.execute_command(*command)
            except NoPermissionError:
                continue
            allowed.append(command)
    assert not allowed


def test_a_role_reaches_its_sources_and_nothing_of_others(valkey_url: str, users: dict[str, AclUser]) -> None:
    for role in ("listeners", "router", "resumer", "executor", "api"):
        with as_user(valkey_url, users[f"sluice-{role}"]) as client:
            client.execute_command("RPUSH", "legacy-queue", "{}")
            client.execute_command("LPOP", "legacy-queue")
            for command in (["GET", "test:others"], ["FLUSHDB"], ["CONFIG", "GET", "*"], ["KEYS", "*"], ["SYNC"]):
                with pytest.raises(NoPermissionError):
                    client.execute_command(*command)


def test_the_file_has_no_password_in_it_and_closes_the_user_without_one() -> None:
    users = acl_users(SOURCES)
    text = acl_file(users)
    assert not [user.name for user in users if user.password in text]
    assert "user default reset off" in text.splitlines()
    assert len({user.password for user in users}) == len(users)


def test_a_name_that_an_acl_file_cannot_hold_is_refused() -> None:
    with pytest.raises(ConfigError, match="white space"):
        acl_users([RedisSource(stream="my orders")])


def test_the_command_writes_both_files_for_their_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))
    folder = tmp_path / "redis"
    first = CliRunner().invoke(app, ["acl", str(folder)])
    assert first.exit_code == 0, first.output
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "users.acl": 0o600, "passwords.json": 0o600
    }  # fmt: skip
    before = (folder / "users.acl").read_text()
    assert CliRunner().invoke(app, ["acl", str(folder)]).exit_code == 2
    assert (folder / "users.acl").read_text() == before


def test_the_documented_user_has_the_rights_of_the_roles(checkout: Path) -> None:
    page = (checkout / "docs" / "security.md").read_text()
    found = re.search(r"^ACL SETUSER sluice on >PASSWORD (.*)$", page, re.MULTILINE)
    assert found
    assert found[1] == ROLE_RULES
