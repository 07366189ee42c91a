"""A whole installation whose Redis fails over, forgets, restarts or is busy: every role waits it out, none ends."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from config.settings import RedisSettings
from services.store.connection import SyncRedis, connect_sync
from tests.support.installation import Installation
from tests.support.valkeys import OwnValkey, own_valkey, sentinel
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(600)

AGAIN_SECONDS = 60.0
"""Generous: the promise is 10 s, which the test prints; a machine that is busy with other tests takes longer."""


class Watched:
    """An installation, the processes of its roles as they were at the start, and whether it works."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self._processes = self._ask()

    def works_again(self, since: float, what: str) -> None:
        """Wait until an event leads to its run and everything is ready; no role's process may have ended."""
        self._an_event_leads_to_its_run()
        wait_until(self._ready, within_seconds=AGAIN_SECONDS, what=f"readiness after {what}")
        print(f"ready again {time.monotonic() - since:.1f} s after {what}")  # noqa: T201 - the measurement
        assert self._ask() == self._processes
        said = self.installation.output.read_text()
        assert "Traceback" not in said
        assert "process ended" not in said

    def _an_event_leads_to_its_run(self) -> None:
        order = uuid.uuid4().hex[:8]
        event = {"specversion": "1.0", "id": order, "source": "shop", "type": "order.created"}
        event |= {"data": {"order_id": order, "amount": 1}}

        def taken() -> bool:
            answer = httpx.post(f"{self.installation.status['api']}/events", json=event, timeout=30)
            return answer.status_code == httpx.codes.ACCEPTED

        def created() -> bool:
            runs = self.installation.runs("order-approval")
            return any(order in str(run["parameters"]) and run["state_name"] == "Paused" for run in runs)

        wait_until(taken, within_seconds=AGAIN_SECONDS, what="an event to be taken")
        wait_until(created, within_seconds=AGAIN_SECONDS, what="the event's run to wait")

    def _ready(self) -> bool:
        return httpx.get(f"{self.installation.status['api']}/health/ready", timeout=30).status_code == httpx.codes.OK

    def _ask(self) -> dict[str, list[int]]:
        status: dict[str, Any] = wait_until(self.installation._ready, what="the status")
        return {name: [one["pid"] for one in role["instances"]] for name, role in status["roles"].items()}


@contextmanager
def watched(home: Path, **env: str) -> Iterator[Watched]:
    with Installation(home, env=env) as installation:
        yield Watched(installation)


def demote(valkey: OwnValkey, admin: SyncRedis) -> None:
    """It becomes a replica: whoever waits is told -UNBLOCKED, whoever writes -READONLY; then it is promoted again."""
    admin.replicaof("127.0.0.1", "1")
    time.sleep(3)  # how long it is a replica
    admin.replicaof("NO", "ONE")


def forget(valkey: OwnValkey, admin: SyncRedis) -> None:
    """Everything is gone: streams without their groups (-NOGROUP), scripts, registers, the names of RQ's workers."""
    admin.flushall()
    admin.script_flush()


def restart(valkey: OwnValkey, admin: SyncRedis) -> None:
    """Killed, and back with what it kept: refused connections, -LOADING, names of RQ's workers from before."""
    valkey.kill()
    time.sleep(1)  # how long it is away
    valkey.start()


def keep_busy(valkey: OwnValkey, admin: SyncRedis) -> None:
    """A script of somebody's runs for long: everybody else is told -BUSY."""
    admin.config_set("busy-reply-threshold", 100)
    with ExitStack() as stack:
        other = stack.enter_context(connect_sync(valkey.url, RedisSettings(command_timeout_seconds=60)))
        connection = other.connection_pool.get_connection()
        connection.send_command("EVAL", "while true do end", "0")
        time.sleep(3)  # how long it is busy
        admin.script_kill()
        other.connection_pool.release(connection)


def test_every_role_waits_out_what_redis_does(tmp_path: Path) -> None:
    faults: list[Callable[[OwnValkey, SyncRedis], None]] = [demote, forget, restart, keep_busy]
    with own_valkey(tmp_path / "valkey") as valkey, watched(tmp_path / ".sluice", SLUICE_REDIS_URL=valkey.url) as seen:
        for fault in faults:
            with connect_sync(valkey.url, RedisSettings()) as admin:
                fault(valkey, admin)
            seen.works_again(time.monotonic(), fault.__name__)


def test_every_role_waits_out_a_failover_by_sentinel(tmp_path: Path) -> None:
    with (
        own_valkey(tmp_path / "a") as first,
        own_valkey(tmp_path / "b") as second,
        sentinel(tmp_path / "s", first) as address,
    ):
        with connect_sync(second.url, RedisSettings()) as replica:
            replica.replicaof("127.0.0.1", str(first.port))
            wait_until(lambda: replica.info("replication")["master_link_status"] == "up", what="the replica")
        own = {"SLUICE_REDIS_URL": "redis://mymaster/0", "SLUICE_REDIS__SENTINELS": f'["{address}"]'}
        with watched(tmp_path / ".sluice", **own) as seen, connect_sync(f"redis://{address}", RedisSettings()) as asked:
            wait_until(lambda: asked.sentinel_masters()["mymaster"]["num-slaves"], what="the sentinel to know it")
            asked.sentinel_failover("mymaster")
            with connect_sync(second.url, RedisSettings()) as replica:
                wait_until(lambda: replica.role()[0] == b"master", what="the replica to be promoted")
            seen.works_again(time.monotonic(), "a failover by Sentinel")
