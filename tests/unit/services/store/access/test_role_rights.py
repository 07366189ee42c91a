"""A role's user of Redis may do what its role needs, and no more."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import pytest
from redis.exceptions import NoPermissionError, ResponseError

import services.jobs
from config.settings import RedisSettings
from events.errors import TransientError
from services.executor.job_enqueuer import JobEnqueuer
from services.job_queues.job_gate import APPLY_SIGNAL, EXECUTE_RUN
from services.job_queues.queues import enqueue, queue
from services.job_queues.rq_keys import RESUME, RUNS
from services.job_queues.workers import simple_worker
from services.operations.upkeep.inspector import declared_keys
from services.store.access.acl import AclUser
from services.store.access.role_rights import KEEPER, RIGHTS, RIGHTS_OF_EVERY_ROLE, RoleRights, rules, written_by
from services.store.connection import connect_sync
from services.store.redis_errors import translated
from services.store.unreadable import noted
from tests.unit.services.store.access.conftest import as_user

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


def test_in_the_rules_no_right_takes_another_one_back() -> None:
    made = rules(RoleRights(("b", "a", "a"), ("c", "a"), ("z", "y"), "+publish"))
    patterns, _, commands = made.partition(" -@all ")
    assert patterns.split() == ["~a", "~b", "%R~c", "resetchannels", "&y", "&z"]
    assert commands.split()[0] == "+auth"
    assert commands.endswith("+publish")
