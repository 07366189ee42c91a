"""A backup of a running installation, and another installation out of it that goes on where that was."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from config.settings import load_settings
from services.home.access import find_access
from services.local.backup import making
from tests.support.installation import Installation

pytestmark = pytest.mark.timeout(600)


def test_an_event_that_comes_while_the_backup_is_made_has_one_run_after_the_restore(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two copies it comes and is done; its sender, who has it still, sends it again after the restore.

    If Prefect were copied first, Redis would know the event and Prefect would not know its run: it would be lost.
    """
    between = uuid.uuid4().hex[:8]
    copies: list[str] = []

    def watched(name: str) -> Callable[..., None]:
        copy = getattr(making, name)

        def copying(*arguments: Any) -> None:
            if copies:
                publish(installation, between)
                installation.until(
                    lambda: [run for run in runs_of(installation, between) if run["state_name"] == "Paused"],
                    "the run of the event that came between the copies waits",
                )
                installation.sluice("signals", "send", "--key", f"order-{between}", "--input", '{"approved": true}')
                installation.until(
                    lambda: runs_of(installation, between)[0]["state_type"] == "COMPLETED", "it is completed"
                )
            copies.append(name)
            copy(*arguments)

        return copying

    for name in ("copy_to", "copy_sqlite"):
        monkeypatch.setattr(making, name, watched(name))
    monkeypatch.delenv("PREFECT_API_URL")  # that of the tests' own server
    monkeypatch.setenv("SLUICE_HOME", str(installation.home))
    settings = load_settings()
    making.back_up(settings, find_access(settings), tmp_path / "backup", say=lambda _: None)
    assert len(copies) == 2

    home = tmp_path / "other" / ".sluice"
    installation.sluice("restore", str(tmp_path / "backup"), "--home", str(home))
    env = {name: value for name, value in installation.env.items() if name not in {"SLUICE_HOME", "SLUICE_CONFIG"}}
    with Installation(home, env=env) as restored:
        after = uuid.uuid4().hex[:8]
        for order in (between, after):  # one stream: what comes later is decided later
            publish(restored, order)
        restored.until(lambda: runs_of(restored, after), "what comes after the restore has its run")
        assert [len(runs_of(restored, order)) for order in (between, after)] == [1, 1]
        assert runs_of(restored, between)[0]["state_type"] == "COMPLETED"
        assert runs_of(restored, between)[0]["run_count"] == runs_of(installation, between)[0]["run_count"]


def publish(installation: Installation, order: str) -> None:
    event = {"specversion": "1.0", "id": order, "source": "shop", "type": "order.created"}
    installation.redis.xadd("sluice.events", {"event": json.dumps({**event, "data": {"order_id": order, "amount": 1}})})


def runs_of(installation: Installation, order: str) -> list[dict[str, Any]]:
    return [run for run in installation.runs("order-approval") if run["parameters"].get("order_id") == order]


def test_a_restored_installation_resumes_what_waits_and_does_nothing_twice(
    installation: Installation, tmp_path: Path
) -> None:
    waiting, done = (uuid.uuid4().hex[:8] for _ in range(2))
    for order in (waiting, done):
        publish(installation, order)
        installation.until(
            lambda order=order: [run for run in runs_of(installation, order) if run["state_name"] == "Paused"],
            "the run of the order waits",
        )
    backup = tmp_path / "backup"

    assert "is no finished backup" in installation.sluice("restore", str(tmp_path), check=False).stderr
    told = json.loads(installation.sluice("backup", str(backup), "--json").stdout)

    assert {"redis.rdb", "prefect.db", "home/credentials.json"} <= set(told["files"])
    assert told["prefect_copied"] >= told["redis_copied"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in (backup, backup / "redis.rdb", backup / "prefect.db"))
    again = installation.sluice("backup", str(backup), check=False)
    assert (again.returncode, "is not empty" in again.stderr) == (2, True)
    alive = installation.sluice("restore", str(backup), "--replace", check=False)
    assert (alive.returncode, "already running" in alive.stderr) == (2, True)

    # The moment of the second copy is later: a run that was answered between the two is answered in Prefect only.
    installation.sluice("signals", "send", "--key", f"order-{done}", "--input", '{"approved": true}')
    installation.until(
        lambda: runs_of(installation, done)[0]["state_type"] == "COMPLETED", "the answered run is completed"
    )
    later = tmp_path / "later"
    installation.sluice("backup", str(later))
    manifest = json.loads((backup / "manifest.json").read_text())
    (later / "prefect.db").replace(backup / "prefect.db")
    assert "is not what was written" in installation.sluice("restore", str(backup), check=False).stderr
    manifest["files"]["prefect.db"] = json.loads((later / "manifest.json").read_text())["files"]["prefect.db"]
    (backup / "manifest.json").write_text(json.dumps(manifest))

    home = tmp_path / "other" / ".sluice"
    (home / "prefect").mkdir(parents=True)
    full = installation.sluice("restore", str(backup), "--home", str(home), check=False)
    assert (full.returncode, "holds an installation" in full.stderr) == (2, True)
    installation.sluice("restore", str(backup), "--home", str(home), "--replace")
    assert [path.name for path in home.glob("replaced-*/*")] == ["prefect"]
    with closing(sqlite3.connect(home / "prefect" / "prefect.db")) as database:
        before = database.execute("SELECT count(*) FROM flow_run").fetchone()

    env = {name: value for name, value in installation.env.items() if name not in {"SLUICE_HOME", "SLUICE_CONFIG"}}
    with Installation(home, env=env) as restored:
        publish(restored, waiting)  # known already
        restored.until(
            lambda: runs_of(restored, waiting)[0]["state"]["state_details"]["pause_reschedule"],
            "the run that waited waits without a process",
        )
        restored.sluice("signals", "send", "--key", f"order-{waiting}", "--input", '{"approved": true}')
        restored.until(
            lambda: runs_of(restored, waiting)[0]["state_type"] == "COMPLETED", "the run that waited is completed"
        )
        new = uuid.uuid4().hex[:8]
        publish(restored, new)
        restored.until(lambda: runs_of(restored, new), "the restored installation takes what is new")
        assert [len(runs_of(restored, order)) for order in (waiting, done, new)] == [1, 1, 1]
        assert runs_of(restored, done)[0]["state_type"] == "COMPLETED"
        assert runs_of(restored, done)[0]["run_count"] == runs_of(installation, done)[0]["run_count"]
    with closing(sqlite3.connect(home / "prefect" / "prefect.db")) as database:
        after = database.execute("SELECT count(*) FROM flow_run").fetchone()
    assert after[0] - before[0] == 1
