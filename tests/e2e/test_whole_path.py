"""The service as its users meet it: real processes from the first file to the last state in Prefect."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import uuid
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.support.installation import Installation

pytestmark = pytest.mark.timeout(600)

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def drop(folder: Path, name: str, content: str | bytes) -> Path:
    """A file that arrives whole: written under a temporary name, then renamed."""
    part = folder / f"{name}.part"
    part.write_bytes(content if isinstance(content, bytes) else content.encode())
    return part.rename(folder / name)


def run_named(installation: Installation, flow: str, name_part: str) -> dict[str, Any]:
    def probe() -> dict[str, Any] | None:
        return next((run for run in installation.runs(flow) if name_part in run["name"]), None)

    return installation.until(probe, f"a run of {flow} named after {name_part} exists", pause_seconds=0.05)


def state(installation: Installation, flow: str, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = installation.runs(flow, id={"any_": [run_id]})[0]["state"]
    return found


def ended(installation: Installation, flow: str, run_id: str) -> dict[str, Any]:
    def probe() -> dict[str, Any] | None:
        now = state(installation, flow, run_id)
        return now if now["type"] in FINAL else None

    return installation.until(probe, f"run {run_id} has ended", pause_seconds=0.05)


def paused(installation: Installation, flow: str, run_id: str) -> None:
    installation.until(
        lambda: state(installation, flow, run_id)["type"] == "PAUSED", f"run {run_id} waits", pause_seconds=0.05
    )


def order(order_id: str) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": "tests/shop",
        "type": "order.created",
        "data": {"order_id": order_id, "amount": 12.5},
    }


def test_a_csv_file_becomes_one_run_with_its_rows_in_the_database(installation: Installation, inbox: Path) -> None:
    drop(inbox, "cities.csv", "city,people\nOslo,700000\nRome,2800000\n")
    run = run_named(installation, "ingest-file", "cities.csv")
    assert ended(installation, "ingest-file", run["id"])["type"] == "COMPLETED"
    assert {"sluice", "rule:ingest-file"} <= set(run["tags"])
    with sqlite3.connect(installation.home / "data.db") as database:
        assert database.execute("SELECT city, people FROM cities ORDER BY city").fetchall() == [
            ("Oslo", 700000),
            ("Rome", 2800000),
        ]
    installation.until((inbox / "done" / "cities.csv").exists, "the file is archived")
    assert installation.artifacts(run["id"])
    assert len([r for r in installation.runs("ingest-file") if "cities.csv" in r["name"]]) == 1


def test_a_file_s_run_and_event_are_found_by_the_commands(installation: Installation, inbox: Path) -> None:
    drop(inbox, "told.csv", "a\n1\n")
    run = run_named(installation, "ingest-file", "told.csv")
    ended(installation, "ingest-file", run["id"])
    listed = json.loads(installation.sluice("runs", "list", "--json", "--limit", "50").stdout)
    assert run["id"] in {row["id"] for row in listed}
    (event_id,) = (tag.removeprefix("event:") for tag in run["tags"] if tag.startswith("event:"))
    told = json.loads(installation.sluice("events", "show", event_id, "--json").stdout)
    assert run["id"] in json.dumps(told)
    events = json.loads(installation.sluice("events", "list", "--json").stdout)
    assert event_id in {event["id"] for event in events}
    assert json.loads(installation.sluice("runs", "show", run["id"], "--json").stdout)["events"] == [
        {"id": event_id, "source": told["source"]}
    ]
    assert "loaded" in installation.sluice("runs", "logs", run["id"]).stdout


def test_a_broken_file_goes_to_failed_with_a_note_that_names_the_run(installation: Installation, inbox: Path) -> None:
    drop(inbox, "broken.csv", b"a,b\n1,2\n\xff\xfe\x00broken\n3\n")
    run = run_named(installation, "ingest-file", "broken.csv")
    final = ended(installation, "ingest-file", run["id"])
    assert final["type"] == "FAILED"
    note_path = inbox / "failed" / "broken.csv.error.json"
    installation.until(note_path.exists, "the note lies beside the failed file")
    assert (inbox / "failed" / "broken.csv").read_bytes().startswith(b"a,b")
    note = json.loads(note_path.read_text(encoding="utf-8"))
    assert run["id"] in json.dumps(note)
    with sqlite3.connect(installation.home / "data.db") as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert "broken" not in tables or database.execute("SELECT count(*) FROM broken").fetchone() == (0,)


def test_a_file_that_failed_is_brought_back_and_loaded_when_what_was_at_fault_is_mended(
    installation: Installation, inbox: Path
) -> None:
    """By `sluice events replay --failed`, and by Retry in Prefect: the same run starts again, with the same bytes."""
    names = ("command.csv", "retry.csv")
    with sqlite3.connect(installation.home / "data.db") as database:
        for name in names:
            database.execute(f"CREATE TABLE {name.removesuffix('.csv')} (something_else TEXT NOT NULL)")
    runs = {}
    for name in names:
        drop(inbox, name, "a\n1\n")
        runs[name] = run_named(installation, "ingest-file", name)["id"]
        assert ended(installation, "ingest-file", runs[name])["type"] == "FAILED"
        installation.until((inbox / "failed" / f"{name}.error.json").exists, "the note lies beside the failed file")
    with sqlite3.connect(installation.home / "data.db") as database:
        for name in names:
            database.execute(f"DROP TABLE {name.removesuffix('.csv')}")
    retry = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}
    answer = installation.prefect.post(f"flow_runs/{runs['retry.csv']}/set_state", json={"state": retry})
    answer.raise_for_status()
    installation.sluice("events", "replay", runs["command.csv"])
    for name in names:
        installation.until((inbox / "done" / name).exists, f"{name} is archived as done")
        assert state(installation, "ingest-file", runs[name])["type"] == "COMPLETED"
        assert not list((inbox / "failed").glob(f"{name}*"))
        assert len([run for run in installation.runs("ingest-file") if name in run["name"]]) == 1
        with sqlite3.connect(installation.home / "data.db") as database:
            assert database.execute(f"SELECT a FROM {name.removesuffix('.csv')}").fetchall() == [(1,)]
    told = json.loads(installation.sluice("events", "show", "command.csv", "--json").stdout)
    assert [one["type"] for one in told["runs"][0]["states"]] == ["RUNNING", "FAILED", "RUNNING", "COMPLETED"]


@pytest.mark.parametrize("way", ["channel", "stream"])
def test_an_order_waits_for_its_approval_and_goes_on_with_it(installation: Installation, way: str) -> None:
    order_id = f"e2e-{way}"
    message = json.dumps(order(order_id))
    approval = json.dumps({"key": f"order-{order_id}", "input": {"approved": True}, "by": "tests"})
    if way == "channel":
        installation.redis.publish("sluice.events", message)
    else:
        installation.redis.xadd("sluice.events", {"event": message})
    run = run_named(installation, "order-approval", order_id)
    paused(installation, "order-approval", run["id"])
    tags = installation.runs("order-approval", id={"any_": [run["id"]]})[0]["tags"]
    assert f"awaits:order-{order_id}" in tags
    if way == "channel":
        installation.redis.publish("sluice.resume", approval)
    else:
        installation.redis.xadd("sluice.resume", {"event": approval})
    assert ended(installation, "order-approval", run["id"])["type"] == "COMPLETED"


def test_an_order_over_http_is_approved_by_a_link_and_told_of(installation: Installation) -> None:
    token = installation.sluice("token", "create", "shop", "--scope", "publish", "--scope", "read").stdout.strip()
    with httpx.Client(base_url=installation.status["api"], headers={"authorization": f"Bearer {token}"}) as client:
        taken = client.post("/events", json=order("e2e-link"), headers={"content-type": "application/cloudevents+json"})
        assert taken.status_code == 202, taken.text
        run = run_named(installation, "order-approval", "e2e-link")
        paused(installation, "order-approval", run["id"])
        assert client.post("/signals", json={"key": "order-e2e-link"}).status_code == 403
        url = installation.sluice("signals", "link", "order-e2e-link", "--for", "ada").stdout.strip()
        page = httpx.get(url)
        assert page.status_code == 200, page.text
        assert "You answer as <b>ada</b>" in page.text
        answer = httpx.post(url, data={"approved": "true", "note": "soon"}, timeout=60)
        assert answer.status_code == 200, answer.text
        assert ended(installation, "order-approval", run["id"])["type"] == "COMPLETED"
        told = client.get(f"/events/{taken.json()['id']}").json()
        assert [one["run_id"] for one in told["runs"]] == [run["id"]]
        assert client.get(f"/runs/{run['id']}").json()["state"] == "Completed"
        (signal,) = client.get("/signals", params={"key": "order-e2e-link"}).json()["items"]
        assert (signal["outcome"], signal["by"]) == ("applied", "ada")
        assert "order-approval" in json.dumps(client.get("/runs", params={"limit": 5}).json())
        assert client.get("/docs").status_code == 200


def test_an_approval_that_comes_first_is_kept_for_the_order(installation: Installation) -> None:
    order_id = "e2e-early"
    early = {"id": "early-1", "key": f"order-{order_id}", "input": {"approved": True}}
    installation.redis.xadd("sluice.resume", {"event": json.dumps(early)})
    installation.until(
        lambda: "buffered" in installation.sluice("signals", "show", "early-1", "--json", check=False).stdout,
        "the early signal is buffered",
        pause_seconds=0.3,
    )
    installation.redis.xadd("sluice.events", {"event": json.dumps(order(order_id))})
    run = run_named(installation, "order-approval", order_id)
    assert ended(installation, "order-approval", run["id"])["type"] == "COMPLETED"


def test_bad_messages_are_kept_and_the_next_one_is_handled(installation: Installation) -> None:
    hostile = order("e2e-hostile")
    hostile["data"]["x"] = [{"__prefect_kind": "workspace_variable", "variable_name": "secret"}]
    for raw in (b"not json", b"[1]", b'{"specversion":"1.0"}', b'{"a":' * 200, b'"' + b"x" * (2 << 20) + b'"'):
        installation.redis.xadd("sluice.events", {"event": raw})
    installation.redis.xadd("sluice.events", {"event": json.dumps(hostile)})
    good = order("e2e-after-bad")
    installation.redis.xadd("sluice.events", {"event": json.dumps(good)})
    run = run_named(installation, "order-approval", "e2e-after-bad")
    dead = json.loads(installation.sluice("dead", "list", "--json", "--limit", "100").stdout)
    codes = {letter["code"] for letter in dead}
    assert {"not-json", "not-an-object", "not-a-cloudevent", "too-deep", "too-large", "hydration"} <= codes
    assert not [r for r in installation.runs("order-approval") if "e2e-hostile" in r["name"]]
    installation.sluice("runs", "cancel", run["id"])
    assert ended(installation, "order-approval", run["id"])["type"] == "CANCELLED"


def test_an_unknown_run_is_said_so(installation: Installation) -> None:
    answer = installation.sluice("runs", "resume", str(uuid.uuid4()), check=False)
    assert answer.returncode == 1
    assert "unknown" in answer.stderr


def test_a_second_start_on_the_same_home_is_refused_with_the_pid(installation: Installation) -> None:
    answer = installation.sluice("up", check=False)
    assert answer.returncode == 2
    assert str(installation.process.pid) in answer.stderr


@pytest.mark.parametrize("role", ["listeners", "router", "resumer", "executor", "api"])
def test_a_killed_role_is_started_again_and_the_work_is_done(
    installation: Installation, inbox: Path, role: str
) -> None:
    status = json.loads(installation.sluice("status", "--json", check=False).stdout)
    old = {instance["pid"] for instance in status["roles"][role]["instances"]}
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    name = f"after-kill-{role}.csv"
    drop(inbox, name, "a\n1\n")
    run = run_named(installation, "ingest-file", name)
    assert ended(installation, "ingest-file", run["id"])["type"] == "COMPLETED"

    def replaced() -> bool:
        now = json.loads(installation.sluice("status", "--json", check=False).stdout)
        pids = {instance["pid"] for instance in now["roles"][role]["instances"]}
        return bool(now["ready"] and pids - old)

    installation.until(replaced, f"{role} runs again", pause_seconds=0.3)


@pytest.mark.parametrize("server", ["valkey-server", "prefect"])
def test_a_killed_server_is_started_again_with_what_it_held(
    installation: Installation, inbox: Path, server: str
) -> None:
    before = {run["id"] for run in installation.runs("ingest-file")}
    children = psutil.Process(installation.process.pid).children()
    (victim,) = [child for child in children if any(server in word for word in child.cmdline())]
    victim.kill()
    name = f"after-kill-{server}.csv"
    drop(inbox, name, "a\n1\n")

    def answered() -> bool:
        try:
            return any(name in run["name"] for run in installation.runs("ingest-file"))
        except httpx.HTTPError:
            return False

    installation.until(answered, f"{server} is back and the file has its run", pause_seconds=0.2)
    run = run_named(installation, "ingest-file", name)
    assert ended(installation, "ingest-file", run["id"])["type"] == "COMPLETED"
    runs = installation.runs("ingest-file")
    assert before < {run["id"] for run in runs}
    assert len([run for run in runs if name in run["name"]]) == 1
    installation.until((inbox / "done" / name).exists, "the file is archived", pause_seconds=0.1)


def test_ctrl_c_ends_every_process_and_a_second_start_finds_its_state(installation: Installation, inbox: Path) -> None:
    """The last one here: it starts the installation again."""
    drop(inbox, "before-the-end.csv", "a\n1\n")
    run = run_named(installation, "ingest-file", "before-the-end.csv")
    ended(installation, "ingest-file", run["id"])
    installation.until((inbox / "done" / "before-the-end.csv").exists, "the file is archived")
    before = {run["id"] for run in installation.runs("ingest-file")}
    family = psutil.Process(installation.process.pid).children(recursive=True)
    assert len(family) >= 7
    assert installation.stop() < 10
    assert installation.process.returncode == 0
    assert [process for process in family if process.is_running() and process.status() != "zombie"] == []
    drop(inbox, "while-away.csv", "a\n2\n")
    installation.start()
    found = run_named(installation, "ingest-file", "while-away.csv")
    assert {run["id"] for run in installation.runs("ingest-file")} == {*before, found["id"]}


def test_an_order_that_waits_is_approved_after_a_stop_and_a_start(installation: Installation) -> None:
    installation.redis.publish("sluice.events", json.dumps(order("e2e-restart")))
    run = run_named(installation, "order-approval", "e2e-restart")
    paused(installation, "order-approval", run["id"])
    assert installation.stop() < 10
    assert installation.process.returncode == 0
    installation.start()
    assert state(installation, "order-approval", run["id"])["type"] not in FINAL
    approval = {"key": "order-e2e-restart", "input": {"approved": True}, "by": "tests"}
    installation.redis.publish("sluice.resume", json.dumps(approval))
    assert ended(installation, "order-approval", run["id"])["type"] == "COMPLETED"
    assert len([one for one in installation.runs("order-approval") if "e2e-restart" in one["name"]]) == 1
    told = json.loads(installation.sluice("signals", "list", "--json").stdout)
    assert [one["outcome"] for one in told if one.get("key") == "order-e2e-restart"] == ["applied"]
