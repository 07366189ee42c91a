"""A backup of an installation on servers of the user's own, put into other servers of theirs, and gone on from."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest

from config.settings import RedisSettings
from services.store.connection import connect_sync
from tests.e2e.test_backup import publish, runs_of
from tests.support.databases import postgresql
from tests.support.installation import Installation
from tests.support.prefects import prefect_on
from tests.support.valkeys import own_valkey

pytestmark = pytest.mark.timeout(900)


def environment(redis: str, prefect: str, database: str) -> dict[str, str]:
    asyncpg = database.replace("+psycopg", "+asyncpg")
    return {
        "SLUICE_REDIS_URL": redis,
        "SLUICE_REDIS__SHARED": "false",
        "PREFECT_API_URL": prefect,
        "PREFECT_API_DATABASE_CONNECTION_URL": asyncpg,
    }


def paused(installation: Installation, order: str) -> list[dict[str, Any]]:
    return [run for run in runs_of(installation, order) if run["state_name"] == "Paused"]


def test_servers_of_ones_own_are_filled_where_they_are_empty_and_nothing_runs(tmp_path: Path) -> None:
    waiting, done = (uuid.uuid4().hex[:8] for _ in range(2))
    backup = tmp_path / "backup"
    with postgresql() as server, own_valkey(tmp_path / "old") as old, own_valkey(tmp_path / "new") as new:
        with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as admin:
            admin.execute("CREATE DATABASE before")
            admin.execute("CREATE DATABASE after")
        before, after = (server.removesuffix("postgres") + name for name in ("before", "after"))
        with prefect_on(before, tmp_path / "prefect") as prefect:
            with Installation(tmp_path / ".sluice", env=environment(old.url, prefect, before)) as running:
                for order in (waiting, done):
                    publish(running, order)
                    running.until(lambda order=order: paused(running, order), "the run of the order waits")
                running.sluice("signals", "send", "--key", f"order-{done}", "--input", '{"approved": true}')
                running.until(lambda: runs_of(running, done)[0]["state_type"] == "COMPLETED", "the order is done")
                told = json.loads(running.sluice("backup", str(backup), "--json", within_seconds=120).stdout)
                assert {"redis.rdb", "prefect.pgdump"} <= set(told["files"])
                assert not told["own_redis"]
                alive = running.sluice("restore", str(backup), "--home", str(tmp_path / "h"), "--replace", check=False)
                assert (alive.returncode, "roles run on the Redis" in alive.stderr) == (2, True), alive.stderr
            assert "the Prefect server at" in alive.stderr

        # The same servers, where nothing runs any more, hold it.
        other = Installation(tmp_path / "other", env=environment(old.url, prefect, before))
        full = other.sluice("restore", str(backup), check=False)
        assert full.returncode == 2
        assert "holds an installation: say --replace, which deletes" in full.stderr
        assert "holds tables" in full.stderr
        assert not (tmp_path / "other" / "prefect").exists()

        # Empty ones, of which one is shared with others.
        with connect_sync(new.url, RedisSettings()) as redis:
            redis.set("test:others", "theirs")
        other = Installation(tmp_path / "other", env=environment(new.url, prefect, after))
        other.sluice("restore", str(backup), within_seconds=120)
        again = other.sluice("restore", str(backup), check=False)
        assert again.returncode == 2
        assert other.sluice("restore", str(backup), "--replace", within_seconds=120).returncode == 0

        with (
            prefect_on(after, tmp_path / "prefect-after") as prefect,
            Installation(tmp_path / "other", env=environment(new.url, prefect, after)) as restored,
        ):
            publish(restored, waiting)  # known already
            # It is answered once the executor has settled it: before that, it counts as one that was executing.
            restored.until(
                lambda: runs_of(restored, waiting)[0]["state"]["state_details"]["pause_reschedule"],
                "the run that waited waits without a process",
            )
            restored.sluice("signals", "send", "--key", f"order-{waiting}", "--input", '{"approved": true}')
            restored.until(
                lambda: runs_of(restored, waiting)[0]["state_type"] == "COMPLETED", "the run that waited is done"
            )
            order = uuid.uuid4().hex[:8]
            publish(restored, order)
            restored.until(lambda: runs_of(restored, order), "what is new is taken")
            assert [len(runs_of(restored, one)) for one in (waiting, done, order)] == [1, 1, 1]
            assert runs_of(restored, done)[0]["state_type"] == "COMPLETED"
        with connect_sync(new.url, RedisSettings()) as redis:
            assert redis.get("test:others") == b"theirs"
