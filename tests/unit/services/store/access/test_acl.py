"""The publisher's user can publish and do nothing else; a role's user what the role needs; the monitor's reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import NoPermissionError, ResponseError
from typer.testing import CliRunner

import services.jobs
from config.canary import canary_stream
from config.settings import RedisSettings, load_settings
from config.sources import RedisSource
from events.errors import ConfigError, TransientError
from services.cli import app
from services.executor.job_enqueuer import JobEnqueuer
from services.job_queues.job_gate import APPLY_SIGNAL, EXECUTE_RUN
from services.job_queues.queues import enqueue, queue
from services.job_queues.rq_keys import RESUME, RUNS
from services.job_queues.workers import simple_worker
from services.operations.readiness import read_readiness
from services.operations.upkeep.inspector import declared_keys
from services.store.access.acl import ONE_USER_RULES, AclUser, acl_file, acl_users
from services.store.access.role_rights import KEEPER, RIGHTS, RIGHTS_OF_EVERY_ROLE, written_by
from services.store.connection import SyncRedis, connect, connect_sync
from services.store.redis_errors import translated
from services.store.unreadable import noted

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


EVERY_ROLE_IS_REFUSED = [
    ["GET", "test:others"],
    ["SET", "test:others", "x"],
    ["RENAME", "sluice:project", "test:others"],
    ["FLUSHDB"],
    ["FLUSHALL"],
    ["CONFIG", "GET", "*"],
    ["KEYS", "*"],
    ["RANDOMKEY"],
    ["SYNC"],
    ["ACL", "LIST"],
    ["CLIENT", "LIST"],
    ["CLIENT", "KILL", "TYPE", "normal"],
    ["CLIENT", "PAUSE", "1"],
    ["SCRIPT", "FLUSH"],
    ["FUNCTION", "FLUSH"],
    ["SUBSCRIBE", "others"],
    ["PUBLISH", "others", "x"],
    ["EVAL", "return redis.call('GET', 'test:others')", "0"],
]
REFUSED = {
    "listeners": [
        ["HGETALL", "sluice:tokens"],
        ["GET", "sluice:links:secret"],
        ["SET", "sluice:executor:alive:a", "x"],
        ["RPUSH", "rq:queue:sluice-runs", "x"],
        ["HSET", "sluice:rules", "a", "b"],
        ["XADD", "sluice:dispatch-queue:a", "*", "d", "x"],
        ["HSET", "sluice:signals:waiting", "a", "b"],
        ["SCAN", "0"],
    ],
    "router": [["LPOP", "legacy-queue"], ["XRANGE", "sluice.events", "-", "+"], ["SUBSCRIBE", "sluice.events"]],
    "resumer": [
        ["XADD", "sluice:journal", "*", "event", "x"],
        ["HGETALL", "sluice:tokens"],
        ["RPUSH", "rq:queue:sluice-runs", "x"],
        ["HSET", "rq:job:run", "data", "x"],
        ["LPOP", "legacy-queue"],
        ["SCAN", "0"],
    ],
    "executor": [
        ["XADD", "sluice:journal", "*", "event", "x"],
        ["XRANGE", "sluice:journal", "-", "+"],
        ["HSET", "sluice:registered", "a", "b"],
        ["HGETALL", "sluice:tokens"],
        ["GET", "sluice:links:secret"],
        ["HGETALL", "sluice:signal:a"],
        ["RPUSH", "rq:queue:sluice-resume", "x"],
        ["LPOP", "legacy-queue"],
    ],
    "api": [
        ["HSET", "sluice:rules", "a", "b"],
        ["HSET", "sluice:registered", "a", "b"],
        ["RPUSH", "rq:queue:sluice-runs", "x"],
        ["HSET", "rq:job:run", "data", "x"],
        ["XADD", "sluice:dispatch-queue:a", "*", "d", "x"],
        ["SET", "sluice:executor:alive:a", "x"],
        ["HSET", "sluice:files:inbox:rows", "a", "b"],
        ["LPOP", "legacy-queue"],
        ["PUBLISH", "sluice:signals:told:a", "x"],
    ],
    "monitor": [
        ["SET", "sluice:project", "x"],
        ["DEL", "sluice:journal"],
        ["RPUSH", "legacy-queue", "{}"],
        ["PUBLISH", "sluice.events", "{}"],
        ["EVAL", "return redis.call('GET', 'sluice:project')", "0"],
    ],
    "operator": [],
    "prefect": [
        ["XADD", "sluice:journal", "*", "event", "x"],
        ["GET", "sluice:links:secret"],
        ["XRANGE", "sluice.events", "-", "+"],
        ["RPUSH", "rq:queue:sluice-runs", "x"],
    ],
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_each_user_is_refused_what_it_need_not_do(valkey_url: str, users: dict[str, AclUser], name: str) -> None:
    others = {"GET", "SET", "EVAL", "PUBLISH", "SUBSCRIBE"}  # of what is not Sluice's
    more = {
        "operator": {"CONFIG", "SYNC", "RANDOMKEY", "SCRIPT", "FUNCTION"},
        "prefect": {"RANDOMKEY", "SCRIPT", "FUNCTION", *others},
    }.get(name, set())
    allowed = []
    for command in [*EVERY_ROLE_IS_REFUSED, *REFUSED[name]]:
        if command[0] in more and command in EVERY_ROLE_IS_REFUSED:
            continue
        with as_user(valkey_url, users[f"sluice-{name}"]) as client:
            try:
                client.execute_command(*command)
            except NoPermissionError:
                continue
            except ResponseError as error:
                if str(error).startswith("ACL failure in script"):
                    continue
        allowed.append(command)
    assert not allowed


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(
    "case",
    [
        ("resumer", "api", RESUME, APPLY_SIGNAL),
        ("executor", "executor", f"{RUNS}-gpu", EXECUTE_RUN),
        ("operator", "operator", RESUME, APPLY_SIGNAL),
    ],
)
def test_rq_asks_for_nothing_that_a_role_may_not_do(
    valkey_url: str,
    users: dict[str, AclUser],
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[str, str, str, str],
    fails: bool,
) -> None:
    """Whether a job ends well or not, and with the maintenance of its registries."""
    role, submitter, name, function = case
    ended: list[str] = []

    def work(name: str) -> None:
        ended.append(name)
        if fails:
            raise RuntimeError("as it is meant to")

    monkeypatch.setattr(services.jobs, function.rpartition(".")[2], work)
    with connect_sync(valkey_url, RedisSettings()) as admin:
        admin.execute_command("ACL", "LOG", "RESET")
        with as_user(valkey_url, users[f"sluice-{submitter}"]) as client:
            assert enqueue(queue(name, client), function, "a", job_id="signal-1", timeout_seconds=60, result_ttl=0)
        with as_user(valkey_url, users[f"sluice-{role}"]) as client:
            worker = simple_worker([name], client, f"{role}-1")
            worker.work(burst=True, logging_level="CRITICAL")
            worker.run_maintenance_tasks()
            worker.wake()
        assert ended == ["a"]
        entries: list[Any] = admin.acl_log()
        assert not [(one["username"], one["reason"], one["object"], one["context"]) for one in entries]


@pytest.mark.parametrize(("role", "name"), [("resumer", RESUME), ("executor", RUNS)])
def test_rq_makes_no_names_of_garbage_that_a_role_may_not_touch(
    valkey_url: str, users: dict[str, AclUser], role: str, name: str
) -> None:
    with connect_sync(valkey_url, RedisSettings()) as admin:
        admin.execute_command("ACL", "LOG", "RESET")
        admin.rpush(f"rq:queue:{name}", "evil", b"\xff", "sluice:journal")
        admin.rpush(f"rq:queue:{name}:intermediate", "evil", "sluice:journal")
        admin.zadd(f"rq:wip:{name}", {"evil:execution": 1, "evil": 1})
        with as_user(valkey_url, users[f"sluice-{role}"]) as client:
            simple_worker([name], client, f"{role}-1").work(burst=True, logging_level="CRITICAL")
            noted.take()
            for member in ("evil", b"\xff", "sluice:journal"):
                admin.sadd(f"rq:workers:{name}", member)
                simple_worker([name], client, f"{role}-1").run_maintenance_tasks()
                assert f"rq:workers:{name}".encode() in noted.take()[0]
                admin.srem(f"rq:workers:{name}", member)
        assert not admin.acl_log()


async def test_the_executor_may_queue_a_run_once_more_whose_job_is_over(
    valkey_url: str, users: dict[str, AclUser]
) -> None:
    with connect_sync(valkey_url, RedisSettings()) as admin, as_user(valkey_url, users["sluice-executor"]) as client:
        enqueuer = JobEnqueuer(client, held=lambda _: False)
        assert await enqueuer.put(RUNS, "run", "state-1", again=True)
        admin.hset("rq:job:state-1", "status", "finished")
        admin.delete(f"rq:queue:{RUNS}")
        assert await enqueuer.put(RUNS, "run", "state-1", again=True)


def test_what_a_script_may_not_touch_is_told_as_a_right_that_is_missing(
    valkey_url: str, users: dict[str, AclUser]
) -> None:
    noted.take()
    with (
        as_user(valkey_url, users["sluice-executor"]) as client,
        pytest.raises(TransientError, match="not let this user"),
        translated(),
    ):
        client.eval("return redis.call('GET', 'sluice:journal')", 0)
    assert noted.take() == (set(), False)


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


def test_every_declared_key_has_a_role_that_writes_it_and_every_right_is_for_a_declared_key() -> None:
    keys = [key for found in declared_keys().values() for key in found]
    inspected = {role: {key.pattern for key in written_by(role, keys)} for role in RIGHTS}
    assert set().union(*inspected.values()) == {key.pattern for key in keys}
    assert inspected[KEEPER] == {key.pattern for key in keys}
    rights = [*RIGHTS.values(), RIGHTS_OF_EVERY_ROLE]
    unused = [
        pattern
        for right in rights
        for pattern in (*right.writes, *right.reads)
        if not any(fnmatchcase(key.pattern, pattern) or fnmatchcase(pattern, key.pattern) for key in keys)
    ]
    assert not unused


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
