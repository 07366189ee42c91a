"""The publisher's user can publish and do nothing else; the monitor's reads; the file holds no password."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from redis.exceptions import NoPermissionError
from typer.testing import CliRunner

from config.settings import RedisSettings, load_settings
from config.sources import RedisSource
from events.errors import ConfigError
from services.cli import app
from services.operations.readiness import read_readiness
from services.store.access.acl import ONE_USER_RULES, AclUser, acl_file, acl_users
from services.store.connection import connect
from tests.unit.services.store.access.conftest import SOURCES, as_user

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


def test_the_listeners_reach_the_sources(valkey_url: str, users: dict[str, AclUser]) -> None:
    with as_user(valkey_url, users["sluice-listeners"]) as client:
        for command in (
            ["RPUSH", "legacy-queue", "{}"],
            ["LPOP", "legacy-queue"],
            ["XADD", "sluice.events", "*", "event", "{}"],
            ["XRANGE", "sluice.events", "-", "+"],
            ["XRANGE", "sluice.canary", "-", "+"],
            ["SUBSCRIBE", "sluice.events"],
            ["PSUBSCRIBE", "orders.*"],
        ):
            client.execute_command(*command)


def test_the_monitor_reads_what_status_reads(valkey_url: str, users: dict[str, AclUser]) -> None:
    with as_user(valkey_url, users["sluice-monitor"]) as client:
        for command in (["INFO"], ["SCAN", "0"], ["XLEN", "sluice:journal"], ["LLEN", "legacy-queue"], ["PING"]):
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
        "users.acl": 0o600, "passwords.json": 0o600, "valkey.env": 0o600
    }  # fmt: skip
    before = (folder / "users.acl").read_text()
    assert CliRunner().invoke(app, ["acl", str(folder)]).exit_code == 2
    assert (folder / "users.acl").read_text() == before


def test_the_documented_user_has_the_rights_of_the_roles(checkout: Path) -> None:
    page = (checkout / "docs" / "security.md").read_text()
    found = re.search(r"^ACL SETUSER sluice on >PASSWORD (.*)$", page, re.MULTILINE)
    assert found
    assert found[1] == ONE_USER_RULES


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("sluice-operator", set()),
        ("sluice-router", set()),
        ("sluice-api", set()),
        ("sluice-listeners", {"redis-refuses"}),
        ("nobody", {"redis-refuses"}),
    ],
)
async def test_the_status_tells_a_user_who_may_not_look_from_a_redis_that_is_away(
    valkey_url: str, users: dict[str, AclUser], name: str, told: set[str]
) -> None:
    password = users[name].password if name in users else "another"
    redis = connect(valkey_url, RedisSettings(username=name, password=password))
    try:
        readiness = await read_readiness(redis, load_settings())
    finally:
        await redis.aclose()
    assert {one.code for one in readiness.reasons if one.code.startswith("redis-")} == told
