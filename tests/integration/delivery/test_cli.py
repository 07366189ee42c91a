"""`sluice events`, `sluice runs list` and `sluice dead` on real servers, as a person or a program calls them."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from events.identity import identity_of
from services.cli import app, dead, events, runs
from services.prefect_api.client import PrefectApi
from services.store.dead_letters import event_letter
from tests.integration.delivery.commands import call, emptied, have_runs, letters, read_json
from tests.integration.delivery.world import RULE, World, deployment, order, runs_of, set_state
from tests.support.waiting import PATIENCE_SECONDS, eventually

pytestmark = pytest.mark.usefixtures("addressed")


def _cloud_event(**fields: Any) -> str:
    return json.dumps(
        {"specversion": "1.0", "id": str(uuid.uuid4()), "source": "shop", "type": "order.placed"} | fields
    )


async def test_publish_takes_a_file_or_standard_input_once(world: World, tmp_path: Path) -> None:
    file = tmp_path / "event.json"
    file.write_text(_cloud_event(id="one"))
    assert (await call(events.app, "publish", str(file))).stdout == "one\n"
    again = await call(events.app, "publish", "-", stdin=_cloud_event(id="one"))
    assert "known" in again.stdout
    many = await call(events.app, "publish", "-", "--json", stdin="\n".join(_cloud_event(id=f"m{n}") for n in range(3)))
    assert [row["id"] for row in json.loads(many.stdout)] == ["m0", "m1", "m2"]
    assert (await world.journal.depth()).entries == 4


async def test_publish_refuses_what_is_no_event_with_a_sentence(world: World) -> None:
    result = await call(events.app, "publish", "-", stdin='{"specversion": "1.0", "id": ""}')
    assert result.exit_code == 1
    assert "the CloudEvent is not valid" in result.stderr
    forged = await call(events.app, "publish", "-", stdin=_cloud_event(id="forged", type="sluice.file.arrived"))
    assert forged.exit_code != 0
    assert "reserved" in forged.stdout + forged.stderr
    missing = await call(events.app, "publish", "/nowhere.json")
    assert missing.exit_code == 2


async def test_list_filters_and_show_explains(world: World, prefect: PrefectApi) -> None:
    name = await deployment(prefect)
    world.use({**RULE, "run": name, "when": "event.data.amount > 10"})
    follower = asyncio.create_task(call(events.app, "tail", "--since", "1h", "--json", "--limit", "3"))
    async with world.running("router", "dispatcher"):
        await world.publish(order(5, id_="small"), order(50, id_="large"), order(1, id_="other", type_="weather"))
        await eventually(lambda: runs_of(prefect, name))
        await eventually(lambda: _routed(world, "other"))
        await eventually(lambda: emptied(world))
    told = [json.loads(line) for line in (await follower).stdout.splitlines()]
    assert {row["id"]: row["matched"] for row in told} == {"small": [], "large": ["pay"], "other": []}
    for_weather = await call(events.app, "tail", "--since", "1h", "--json", "--limit", "1", "--type", "weather")
    assert json.loads(for_weather.stdout)["outcome"] == "unmatched"
    line = (await call(events.app, "tail", "--since", "1h", "--limit", "1", "--rule", "pay")).stdout
    assert re.fullmatch(r"\S+ \S+  order\.placed  large  order  -> pay\n", line)
    rows = await read_json(events.app, "list")
    assert [row["id"] for row in rows] == ["other", "large", "small"]
    assert [row["id"] for row in await read_json(events.app, "list", "--limit", "1")] == ["other"]
    assert [row["id"] for row in await read_json(events.app, "list", "--type", "order.*")] == ["large", "small"]
    assert [row["id"] for row in await read_json(events.app, "list", "--rule", "pay")] == ["large"]
    assert [row["id"] for row in await read_json(events.app, "list", "--unmatched")] == ["other", "small"]
    assert await read_json(events.app, "list", "--since", "2h", "--until", "1h") == []
    table = (await call(events.app, "list")).stdout.splitlines()
    assert max(map(len, table)) <= 80
    assert re.fullmatch(r"other +(now|\d+ s ago) +unmatched +weather +-?\S*", table[1])
    wrong = await call(events.app, "list", "--rule", "pai")
    assert (wrong.exit_code, "has no such rule" in wrong.stderr) == (2, True)
    shown = await read_json(events.app, "show", "small")
    (verdict,) = shown["verdicts"]
    assert verdict["failed"] == "when"
    assert "event.data.amount = 5" in verdict["detail"] or "5" in verdict["detail"]
    assert shown["outcome"] == "unmatched"
    large = await read_json(events.app, "show", "large")
    (run,) = await runs_of(prefect, name)
    assert large["runs"][0]["run_id"] == run["id"]
    assert large["waits_for"] == ["pay#0"]
    assert set(large["timings_ms"]) >= {"received to journalled", "journalled to routed", "routed to run created"}
    text = await call(events.app, "show", "large")
    assert "pay: matched" in text.stdout
    unknown = await call(events.app, "show", "nobody")
    assert unknown.exit_code == 1


async def test_replay_forecasts_repairs_and_reruns(
    world: World, prefect: PrefectApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await deployment(prefect)
    world.use({**RULE, "run": name})
    config = tmp_path / "sluice.yaml"
    config.write_text(json.dumps({"rules": [{**RULE, "run": name}]}))
    monkeypatch.setenv("SLUICE_CONFIG", str(config))
    async with world.running("router", "dispatcher"):
        await world.publish(order(1, id_="a"), order(2, id_="b"))
        await eventually(lambda: have_runs(prefect, name, 2))
        await eventually(lambda: emptied(world))
        forecast = await read_json(events.app, "replay", "a", "b", "--dry-run")
        assert forecast == {
            "events": 2,
            "rules": [{"rule": "pay", "runs": 0, "already_there": 2, "signals": 0, "gathered": 0, "errors": 0}],
        }
        assert (await read_json(events.app, "replay", "--type", "order.*"))["events"] == 2
        rerun = await read_json(events.app, "replay", "b", "--rerun")
        await eventually(lambda: have_runs(prefect, name, 3))
        await read_json(events.app, "replay", "b", "--salt", rerun["rerun"])
        await eventually(lambda: emptied(world))
    amounts = sorted(run["parameters"]["amount"] for run in await runs_of(prefect, name))
    assert amounts == [1, 2, 2]
    nonsense = await call(events.app, "replay")
    assert nonsense.exit_code == 2


async def test_runs_are_chosen_by_rule_state_event_and_time_and_counted_by_state(
    world: World, prefect: PrefectApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await deployment(prefect)
    flow = name.partition("/")[0]
    rule = f"pay-{flow}"
    ids = {amount: f"{flow}-{amount}" for amount in (1, 2, 3)}
    world.use({**RULE, "name": rule, "run": name})
    (tmp_path / "sluice.yaml").write_text(json.dumps({"rules": [{**RULE, "name": rule, "run": name}]}))
    monkeypatch.setenv("SLUICE_CONFIG", str(tmp_path / "sluice.yaml"))
    async with world.running("router", "dispatcher"):
        await world.publish(*(order(amount, id_=id_) for amount, id_ in ids.items()))
        await eventually(lambda: have_runs(prefect, name, 3))
        await eventually(lambda: emptied(world))
    found = {run["parameters"]["amount"]: run["id"] for run in await runs_of(prefect, name)}
    await set_state(prefect, found[1], "FAILED", message="no such account")
    await set_state(prefect, found[2], "COMPLETED", name="Degraded")
    await set_state(prefect, found[3], "RUNNING")  # scheduled it would be late after a while

    async def listed(*options: str) -> set[str]:
        return {row["id"] for row in await read_json(runs.app, "list", *options)}

    assert await listed("--rule", rule) == await listed("--deployment", name) == set(found.values())
    assert await listed("--rule", rule, "--since", "1h") == set(found.values())
    assert await listed("--rule", rule, "--until", "1h") == set()
    assert await listed("--rule", rule, "--state", "failed") == {found[1]}
    assert await listed("--rule", rule, "--state", "degraded", "--state", "Failed") == {found[1], found[2]}
    assert await listed("--rule", rule, "--state", "late") == set()
    assert await listed("--event", ids[2]) == {found[2]}
    shared = await call(runs.app, "list", "--event", flow)
    assert (shared.exit_code, f"give more of the id, one of {', '.join(ids.values())}" in shared.stderr) == (1, True)
    other = await prefect.request("GET", f"/deployments/name/{await deployment(prefect)}")
    for _ in range(8):  # more than are looked at
        await prefect.request("POST", f"/deployments/{other['id']}/create_flow_run", json={"parameters": {"amount": 1}})
    for run_id in found.values():
        assert (await read_json(runs.app, "show", run_id[:13]))["id"] == run_id
    everything = [run["id"] for run in await read_json(runs.app, "list", "--limit", "10000", "--since", "2h")]
    shared = next(start for start in (one[:4] for one in everything) if not start.isdecimal())
    few = await call(runs.app, "show", shared)
    assert few.exit_code == (1 if sum(one.startswith(shared) for one in everything) > 1 else 0)
    nobody = await call(runs.app, "show", "ffffffff-ffff")
    assert (nobody.exit_code, "none whose id begins so" in nobody.stderr) == (1, True)
    await world.redis.flushdb()  # the history has forgotten the event
    assert await listed("--event", ids[2]) == {found[2]}

    asked = await prefect.request("POST", "/deployments/filter", json={"flows": {"name": {"any_": [flow]}}})
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    later = {"type": "SCHEDULED", "state_details": {"scheduled_time": tomorrow}}
    body = {"parameters": {"amount": 4}, "state": later}
    future = (await prefect.request("POST", f"/deployments/{asked[0]['id']}/create_flow_run", json=body))["id"]
    assert future not in await listed("--deployment", flow)
    assert await listed("--deployment", flow, "--state", "scheduled") == {future}

    counts = [{"state": "Degraded", "runs": 1}, {"state": "Failed", "runs": 1}, {"state": "Running", "runs": 1}]
    assert await read_json(runs.app, "list", "--deployment", flow, "--totals", "--limit", "1") == counts
    text = await call(runs.app, "list", "--deployment", flow, "--limit", "2")
    assert "3 runs: 1 Degraded, 1 Failed, 1 Running; the newest 2 are shown" in text.stderr

    for wrong, code, said in (
        (("--state", "broken"), 2, "--state 'broken' is no state that a run is in: choose from awaitingconcurrency"),
        (("--state", "broken"), 2, "completed, crashed, degraded, failed, late"),
        (("--rule", f"{rule}s"), 2, f"sluice.yaml has no such rule: did you mean `{rule}`?"),
        (("--deployment", f"{flow}/defautl"), 2, f"there is no such deployment: did you mean `{name}`?"),
        (("--deployment", f"{flow}x"), 2, f"there is no flow '{flow}x': did you mean `{flow}`?"),
        (("--since", "1h", "--until", "2h"), 2, "is not before --until"),
        (("--since", "yesterday"), 2, "neither an age such as 15m"),
        (("--event", "nobody"), 1, "the event 'nobody' is not known (any more)"),
    ):
        result = await call(runs.app, "list", *wrong)
        assert result.exit_code == code, result.output
        assert said in " ".join(result.stderr.replace("│", " ").split())


async def test_an_event_is_found_by_its_run_or_the_start_of_an_id_and_a_cancelled_run_did_not_fail(
    world: World, prefect: PrefectApi
) -> None:
    name = await deployment(prefect)
    world.use({**RULE, "run": name})
    async with world.running():
        await world.publish(order(1, id_="shop-failed"), order(2, id_="shop-cancelled"), order("x", id_="spoilt"))
        await eventually(lambda: have_runs(prefect, name, 2))
        found = {run["parameters"]["amount"]: run["id"] for run in await runs_of(prefect, name)}
        await set_state(prefect, found[1], "FAILED", message="no such account")
        await set_state(prefect, found[2], "CANCELLED", message="not wanted")
        await eventually(lambda: _outcome(world, "shop-failed", "failed"))
        await eventually(lambda: _outcome(world, "shop-cancelled", "cancelled"))
        (letter,) = await eventually(lambda: read_json(dead.app, "list"))
    reasons = {row["id"]: row["reason"] for row in await read_json(events.app, "list", "--failed")}
    assert reasons == {"shop-failed": "no such account", "spoilt": letter["reason"]}
    assert "no such account" in (await call(events.app, "list", "--failed")).stdout
    for called in (found[1], found[1][:13], "shop-f", "shop-failed"):
        assert (await read_json(events.app, "show", called))["id"] == "shop-failed"
    assert (await read_json(events.app, "show", letter["id"]))["id"] == "spoilt"
    several = await call(events.app, "show", "shop-")
    assert (several.exit_code, "name one of shop-cancelled, shop-failed" in several.stderr) == (1, True)
    nothing = await call(events.app, "show", "nobody")
    assert "nothing is called 'nobody'" in nothing.stderr


async def test_what_is_kept_is_listed_with_its_size_and_its_limit(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in" / "done").mkdir(parents=True)
    (tmp_path / "in" / "done" / "a.csv").write_bytes(b"x" * 1000)
    (tmp_path / "sluice.yaml").write_text(json.dumps({"sources": {"files": {"in": {"path": "in"}}}}))
    monkeypatch.setenv("SLUICE_CONFIG", str(tmp_path / "sluice.yaml"))
    monkeypatch.setenv("SLUICE_FILES__DONE_DAYS", "30")
    await world.publish(order(1), order(2))
    await world.dead.add(event_letter(order(3), rule="pay", code="template", reason="no"))
    found = await read_json(app, "storage")
    kept = {row["what"]: row for row in found["kept"]}
    assert (kept["journal"]["count"], kept["journal"]["size"] > 0) == (2, True)
    assert kept["journal"]["kept"].startswith("7 days")
    assert kept["dead letters and quarantine"]["count"] == 1
    assert kept["watch in: done"] | {"oldest": None} == {
        "what": "watch in: done", "count": 1, "size": 1000, "oldest": None, "kept": "30 days (files.done_*)",
    }  # fmt: skip
    assert kept["watch in: failed"]["kept"] == "for ever (files.failed_*)"
    assert all(disk["free"] > 0 and disk["stops_below"] <= disk["warns_below"] for disk in found["disks"])
    text = await call(app, "storage")
    assert "1000 B" in text.stdout
    assert "no file is taken below" in text.stderr


async def test_the_doctor_looks_at_the_servers(world: World) -> None:
    async def graded(exit_code: int) -> dict[str, str]:
        result = await call(app, "doctor", "--json")
        assert result.exit_code == exit_code, result.output
        return {f"{row['check']} {row['found']}"[:60]: row["grade"] for row in json.loads(result.stdout)}

    policy = (await world.redis.config_get("maxmemory-policy"))["maxmemory-policy"]
    await world.redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        found = await graded(1)
    finally:
        await world.redis.config_set("maxmemory-policy", policy)
    (eviction,) = (grade for check, grade in found.items() if check.startswith("eviction"))
    clocks = {check: grade for check, grade in found.items() if check.startswith("clock")}
    prefect = {check: grade for check, grade in found.items() if check.startswith("prefect")}
    assert (eviction, set(clocks.values()), len(clocks)) == ("fail", {"ok"}, 2)
    assert list(prefect.values()) == ["ok"]
    assert not [check for check, grade in (await graded(0)).items() if grade == "fail"]


async def test_top_shows_the_installation_on_a_terminal_and_leaves_it_as_it_was(world: World, checkout: Path) -> None:
    world.use({**RULE, "run": "a/b", "parameters": {"amount": "{{ event.data.missing.deep }}"}})
    async with world.running("router"):
        await world.publish(order(1, id_="broken"))
        await eventually(lambda: letters(1))
    for key in (b"q", b"\x03"):
        assert await asyncio.to_thread(_top_until, checkout, b"missing", key) == 0
    refused = await call(app, "top")
    assert (refused.exit_code, "top needs a terminal" in refused.stderr) == (2, True)


BECOMES_TOP = """import os, signal, sys
os.login_tty(0)
signal.signal(signal.SIGINT, signal.SIG_DFL)  # also where the tests were started with it ignored
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def _top_until(checkout: Path, shown: bytes, key: bytes) -> int:
    """The exit code of `sluice top`, to which ``key`` is typed once ``shown`` is on its screen."""
    ours, its = pty.openpty()
    screen = b""

    def read_until(*wanted: bytes) -> None:
        nonlocal screen
        until = time.monotonic() + PATIENCE_SECONDS
        while not all(one in screen for one in wanted):
            left = until - time.monotonic()
            assert left > 0, screen[-8000:]
            assert select.select([ours], [], [], left)[0], screen[-8000:]
            screen += os.read(ours, 65536)

    termios.tcsetwinsize(its, (50, 80))
    before = termios.tcgetattr(its)
    command = [sys.executable, "-c", BECOMES_TOP, "-m", "services.cli", "top", "--every", "0.5"]
    process = subprocess.Popen(command, cwd=checkout, stdin=its, env={**os.environ, "TERM": "xterm"})
    try:
        read_until(b"\x1b[?1049h", b"queues", b"events a second", b"last failures", shown)
        os.write(ours, key)
        read_until(b"\x1b[?1049l")
        code = process.wait(PATIENCE_SECONDS)
        assert termios.tcgetattr(its) == before
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(its)
    return code


async def _routed(world: World, event_id: str) -> bool:
    found = await world.history.get(identity_of("shop", event_id))
    return found is not None and found.judged > 0


async def _outcome(world: World, event_id: str, outcome: str) -> bool:
    found = await world.history.get(identity_of("shop", event_id))
    return found is not None and found.outcome == outcome
