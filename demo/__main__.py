"""`make demo`: a file, an order and its approval, and an order that waits while all is stopped and started again.

Prints the timeline; exit 0 only if all is so.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from demo.every_flow import SECRETS, look_for_secrets, play, web_server
from demo.installation import Failed, Installation

FILE = Path(__file__).parent / "data" / "seattle-weather.csv"
"""Four years of weather in Seattle, from the U.S. National Oceanic and Atmospheric Administration; public domain."""
ROWS = 1461
SNOW = 23


class DemoTimeline:
    """What happened when, printed as it happens."""

    def __init__(self) -> None:
        self._from = time.time()

    def begin(self, what: str) -> None:
        """A step that the user does; the following latencies count from here."""
        self._from = time.time()
        print(f"\n{what}", flush=True)

    def reached(self, what: str, at: datetime | None = None) -> None:
        """Something that followed, at the moment Prefect recorded, or now."""
        moment = at.timestamp() if at else time.time()
        print(f"  {(moment - self._from) * 1000:8.0f} ms  {what}", flush=True)


def main() -> int:
    """Play the story; 0 only if every step was found true in Prefect and in the database."""
    options = argparse.ArgumentParser(prog="make demo", description=__doc__)
    options.add_argument("--keep", action="store_true", help="keep the temporary home and say where it is")
    options.add_argument("--all", action="store_true", help="run every flow of flows/ once instead")
    arguments = options.parse_args()
    with ExitStack() as stack:
        directory = tempfile.mkdtemp(prefix="sluice-demo-")
        if not arguments.keep:
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
        installation = Installation(Path(directory) / ".sluice", env=SECRETS if arguments.all else None)
        try:
            (_play_all if arguments.all else _play)(installation)
        except Failed as error:
            print(f"\nThe demo failed: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
        finally:
            if arguments.keep:
                print(f"Kept: {directory}")
    return 0


def _play(installation: Installation) -> None:
    timeline = DemoTimeline()
    timeline.begin("Starting everything on a temporary home ...")
    with installation:
        timeline.reached(f"ready; Prefect UI at {installation.status['prefect_ui']}")
        _ingest(installation, timeline)
        _approve(installation, timeline, _order(installation, timeline, 1042), 1042)
        waiting = _order(installation, timeline, 1043)
        timeline.begin("Ctrl-C, while this order waits")
    _stopped(installation, timeline)
    timeline.begin("Starting again on the same home ...")
    with installation:
        timeline.reached("ready")
        _approve(installation, timeline, waiting, 1043)
        timeline.begin("Ctrl-C")
    _stopped(installation, timeline)
    print("\nEverything happened, as Prefect and the database tell.")


def _play_all(installation: Installation) -> None:
    timeline = DemoTimeline()
    timeline.begin("Starting everything on a temporary home ...")
    with web_server() as address, installation:
        timeline.reached(f"ready; Prefect UI at {installation.status['prefect_ui']}")
        timeline.begin("Every flow once: sluice runs start FLOW --watch")
        ran = ["order-approval"]
        for line in play(installation, installation.home.parent, address):
            timeline.reached(line)
            ran.append(line.partition(":")[0])
        _approve(installation, timeline, _order(installation, timeline, 1042), 1042)
    look_for_secrets(installation.home.parent)
    timeline.reached("no file has the secrets that the flows used")
    print(f"\nEvery flow did what it should, {len(ran)} of them: {', '.join(sorted(ran))}.")


def _stopped(installation: Installation, timeline: DemoTimeline) -> None:
    timeline.reached(f"stopped with exit code {installation.process.returncode}")
    _demand(installation.process.returncode == 0, f"the service ended with code {installation.process.returncode}")


def _ingest(installation: Installation, timeline: DemoTimeline) -> None:
    inbox = Path(next(iter(installation.status["watches"].values())))
    part = inbox / f"{FILE.name}.part"
    shutil.copyfile(FILE, part)
    timeline.begin(f"A CSV file of {ROWS} days is dropped into the inbox")
    part.rename(inbox / FILE.name)
    run = installation.until(_first(installation, "ingest-file"), "a run of ingest-file exists")
    timeline.reached(f"flow run {run['name']!r} created", _time(run["created"]))
    run = installation.until(_ended(installation, "ingest-file", run["id"]), "the run has ended")
    _demand(
        run["state"]["type"] == "COMPLETED", f"ingest-file ended as {run['state']['name']}: {run['state']['message']}"
    )
    timeline.reached("the flow began", _time(run["start_time"]))
    timeline.reached("the flow completed", _time(run["end_time"]))
    _demand("sluice" in run["tags"], f"the run carries the tag `sluice`: {run['tags']}")
    with sqlite3.connect(installation.home / "data.db") as database:
        found = database.execute("SELECT count(*), sum(weather = 'snow') FROM seattle_weather").fetchone()
    _demand(found == (ROWS, SNOW), f"the table seattle_weather has {found} days and days with snow, not {ROWS, SNOW}")
    timeline.reached(f"{found[0]} rows are in the database")
    _demand(bool(installation.artifacts(run["id"])), "the run has a summary artifact")
    installation.until((inbox / "done" / FILE.name).exists, "the file is moved to done/")
    timeline.reached("the file is in done/")
    _demand(len(installation.runs("ingest-file")) == 1, "there is exactly one run for the file")


def _order(installation: Installation, timeline: DemoTimeline, number: int) -> dict[str, Any]:
    order = {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": "demo/shop",
        "type": "order.created",
        "data": {"order_id": number, "amount": 129.5},
    }
    known = {run["id"] for run in installation.runs("order-approval")}
    timeline.begin(f"Order {number} is published: PUBLISH sluice.events")
    installation.redis.publish("sluice.events", json.dumps(order))

    def created() -> dict[str, Any] | None:
        return next((run for run in installation.runs("order-approval") if run["id"] not in known), None)

    run = installation.until(created, "a run of order-approval exists")
    timeline.reached(f"flow run {run['name']!r} created", _time(run["created"]))

    def waits() -> dict[str, Any] | None:
        found = _one(installation, "order-approval", run["id"])
        return found if found["state"]["type"] == "PAUSED" else None

    waiting = installation.until(waits, "the run waits for its approval")
    timeline.reached("the flow began", _time(waiting["start_time"]))
    timeline.reached("the run is Paused", _time(waiting["state"]["timestamp"]))
    _demand(f"awaits:order-{number}" in waiting["tags"], f"the run shows what it waits for: {waiting['tags']}")
    return waiting


def _approve(installation: Installation, timeline: DemoTimeline, waiting: dict[str, Any], number: int) -> None:
    run = _one(installation, "order-approval", waiting["id"])
    _demand(run["end_time"] is None, f"the order waits until it is answered: {run['state']['name']}")
    asked = datetime.now(UTC).isoformat()
    timeline.begin(f"The approval of order {number} is published: PUBLISH sluice.resume")
    signal = {"key": f"order-{number}", "input": {"approved": True}, "by": "demo"}
    installation.redis.publish("sluice.resume", json.dumps(signal))
    run = installation.until(_ended(installation, "order-approval", run["id"]), "the run has ended")
    _demand(run["state"]["type"] == "COMPLETED", f"order-approval ended as {run['state']['name']}")
    states = installation.prefect.get("/flow_run_states/", params={"flow_run_id": run["id"]}).json()
    resumed = min(
        (state for state in states if _time(state["timestamp"]) > _time(asked)), key=lambda state: state["timestamp"]
    )
    timeline.reached(f"the run is {resumed['name']}", _time(resumed["timestamp"]))
    timeline.reached("the flow completed", _time(run["end_time"]))


def _first(installation: Installation, flow: str) -> Callable[[], dict[str, Any] | None]:
    return lambda: next(iter(installation.runs(flow)), None)


def _one(installation: Installation, flow: str, run_id: str) -> dict[str, Any]:
    return installation.runs(flow, id={"any_": [run_id]})[0]


def _ended(installation: Installation, flow: str, run_id: str) -> Callable[[], dict[str, Any] | None]:
    def probe() -> dict[str, Any] | None:
        run = _one(installation, flow, run_id)
        return run if run["state"]["type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"} else None

    return probe


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _demand(truth: bool, what: str) -> None:
    if not truth:
        raise Failed(what)


if __name__ == "__main__":
    sys.exit(main())
