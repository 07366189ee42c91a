"""What Redis says when it fails over, starts, forgets, is full or is busy, said as ours: wait, or make it anew."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from redis.exceptions import RedisError

from config.settings import RedisSettings
from events.errors import Backpressure, TransientError
from services.job_queues.queues import enqueue, queue, rq_translated
from services.job_queues.rq_keys import RESUME
from services.job_queues.workers import simple_worker
from services.store.connection import AsyncRedis, SyncRedis, ask_each, connect, connect_sync
from services.store.lease import TAKE
from services.store.redis_errors import GroupGone, ScriptGone, translated
from services.store.unreadable import UnreadableKey
from tests.support.proxy import in_front_of
from tests.support.valkeys import OwnValkey, own_valkey
from tests.support.waiting import wait_until

Ask = Callable[[SyncRedis], Any]
AskAsync = Callable[[AsyncRedis], Awaitable[object]]


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnValkey]:
    with own_valkey(tmp_path_factory.mktemp("valkey")) as found:
        yield found


@pytest.fixture
def admin(valkey: OwnValkey) -> Iterator[SyncRedis]:
    """A client of a server that is as it was before, when the test has ended."""
    with connect_sync(valkey.url, RedisSettings()) as client:
        before = client.config_get("maxmemory", "min-replicas-to-write", "busy-reply-threshold")
        yield client
        client.replicaof("NO", "ONE")
        for name, value in before.items():
            client.config_set(name, value)
        client.flushall()


def said(ask: Ask, client: SyncRedis) -> TransientError | Backpressure:
    with pytest.raises((TransientError, Backpressure)) as raised, translated():
        ask(client)
    assert not isinstance(raised.value, UnreadableKey)
    return raised.value


def test_a_wait_that_a_demotion_ends_is_to_be_tried_again(valkey: OwnValkey, admin: SyncRedis) -> None:
    found: list[Exception] = []

    def wait() -> None:
        with connect_sync(valkey.url, RedisSettings(command_timeout_seconds=60)) as client:
            found.append(said(lambda redis: redis.blpop(["test:list"], 50), client))

    waiting = threading.Thread(target=wait)
    waiting.start()
    wait_until(lambda: admin.info("clients")["blocked_clients"] == 1)
    admin.replicaof("127.0.0.1", "1")
    waiting.join(30)
    assert "UNBLOCKED" in str(found[0])


@pytest.mark.parametrize(
    "ask",
    [
        lambda redis: redis.set("test:key", "x"),
        lambda redis: redis.eval("return redis.call('SET', KEYS[1], 'x')", 1, "test:key"),
        lambda redis: redis.pipeline().set("test:key", "x").set("test:other", "x").execute(),
        lambda redis: redis.pipeline(transaction=False).set("test:key", "x").execute(),
        lambda redis: enqueue(queue(RESUME, redis), "x.y", job_id="job", timeout_seconds=1),
    ],
    ids=["command", "script", "transaction", "pipeline", "rq"],
)
def test_a_write_to_a_replica_is_to_be_tried_again(admin: SyncRedis, ask: Ask) -> None:
    admin.replicaof("127.0.0.1", "1")
    assert "replica" in str(said(ask, admin))


def test_a_server_that_is_busy_with_a_script_is_waited_for(valkey: OwnValkey, admin: SyncRedis) -> None:
    admin.config_set("busy-reply-threshold", 50)

    def spin() -> None:
        with connect_sync(valkey.url, RedisSettings(command_timeout_seconds=60)) as client, pytest.raises(RedisError):
            client.eval("while true do end", 0)

    def busy() -> bool:
        try:
            admin.get("test:key")
        except RedisError as error:
            return "BUSY" in str(error)
        return False

    spinning = threading.Thread(target=spin)
    spinning.start()
    wait_until(busy)
    assert "BUSY" in str(said(lambda redis: redis.get("test:key"), admin))
    admin.script_kill()
    spinning.join(30)


@pytest.mark.parametrize(
    "ask",
    [
        lambda redis: redis.xreadgroup("g", "me", {"test:stream": ">"}),
        lambda redis: redis.xautoclaim("test:stream", "g", "me", 0),
        lambda redis: redis.eval("return redis.call('XPENDING', KEYS[1], 'g')", 1, "test:stream"),
        lambda redis: redis.pipeline().xpending("test:stream", "g").execute(),
    ],
    ids=["read", "claim", "script", "pipeline"],
)
def test_a_group_that_was_flushed_away_is_to_be_made_again(admin: SyncRedis, ask: Ask) -> None:
    admin.xgroup_create("test:stream", "g", mkstream=True)
    admin.flushall()
    assert isinstance(said(ask, admin), GroupGone)


def test_a_script_that_the_server_has_forgotten_is_to_be_sent_again(admin: SyncRedis) -> None:
    said(lambda redis: redis.evalsha("0" * 40, 0), admin)
    known = admin.register_script("return 7")
    assert known() == 7
    admin.script_flush()
    assert known() == 7


@pytest.mark.parametrize(
    "ask",
    [
        lambda redis: redis.lpush("test:key", "x"),
        lambda redis: redis.pipeline(transaction=True).lpush("test:key", "x").execute(),
        lambda redis: ask_each(redis, lambda pipeline, key: pipeline.lpush(key, "x"), ["test:key"]),
        lambda redis: redis.eval("return redis.call('LPUSH', KEYS[1], 'x')", 1, "test:key"),
    ],
    ids=["command", "transaction", "pipeline", "script"],
)
async def test_a_client_of_the_roles_raises_our_errors(valkey: OwnValkey, admin: SyncRedis, ask: AskAsync) -> None:
    admin.set("test:key", "x")
    async with connect(valkey.url, RedisSettings()) as client:
        with pytest.raises(UnreadableKey):
            await ask(client)
        admin.replicaof("127.0.0.1", "1")
        with pytest.raises(TransientError):
            await ask(client)


async def test_a_script_that_the_server_has_forgotten_runs(valkey: OwnValkey, admin: SyncRedis) -> None:
    async with connect(valkey.url, RedisSettings()) as client:
        for _ in range(2):
            admin.script_flush()
            assert await TAKE(client, lease="test:lease", holder="h", life_ms=1) in {0, 1}
        with pytest.raises(ScriptGone):
            await client.evalsha("0" * 40, 0)


@pytest.mark.parametrize(("setting", "value"), [("maxmemory", "1"), ("min-replicas-to-write", "1")])
def test_a_server_that_takes_nothing_is_backpressure(admin: SyncRedis, setting: str, value: str) -> None:
    admin.config_set(setting, value)
    assert isinstance(said(lambda redis: redis.set("test:key", "x"), admin), Backpressure)


@pytest.mark.parametrize(
    "answer",
    [
        "LOADING Valkey is loading the dataset in memory",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "CLUSTERDOWN The cluster is down",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "MOVED 3999 127.0.0.1:1",
        "ASK 3999 127.0.0.1:1",
        "INPROG Failover already in progress",
        "READONLY You can't write against a read only replica.",
        "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
        "ERR max number of clients reached",
        "NOAUTH Authentication required.",
        "NOPERM User default has no permissions to run the 'get' command",
        "MISCONF Errors writing to the AOF file: No space left on device",
    ],
)
async def test_an_answer_that_is_not_for_good_is_waited_out(valkey_url: str, answer: str) -> None:
    """Said by something that stands in the server's place: the server says these at moments that tests cannot make."""
    async with in_front_of(valkey_url) as (proxy, url):
        proxy.instead = [(b"*2\r\n$3\r\nGET", f"-{answer}\r\n".encode())] * 4

        def ask() -> TransientError | Backpressure:
            with connect_sync(url, RedisSettings()) as client:
                return said(lambda redis: redis.get("test:key"), client)

        error = await asyncio.to_thread(ask)
        assert isinstance(error, Backpressure) == answer.startswith("MISCONF")


def test_the_name_of_a_worker_that_was_left_over_is_to_be_tried_again(admin: SyncRedis) -> None:
    simple_worker([RESUME], admin, "left-over").register_birth()
    with pytest.raises(TransientError, match="left-over"), rq_translated():
        simple_worker([RESUME], admin, "left-over").work(logging_level="WARNING")
    simple_worker([RESUME], admin, "another").work(burst=True, logging_level="WARNING")


def test_what_is_no_fault_of_the_moment_is_not_waited_out(admin: SyncRedis) -> None:
    with pytest.raises(RedisError), translated():
        admin.execute_command("NO-SUCH-COMMAND")
    admin.set("test:key", "x")
    with pytest.raises(UnreadableKey), translated():
        admin.lpush("test:key", "x")
