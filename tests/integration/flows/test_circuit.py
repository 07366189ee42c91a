"""The circuit breaker of `resilient-fetch`, shared by runs that do not know each other, on a real Prefect server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import VariableCreate
from prefect.client.schemas.objects import State
from prefect.states import Crashed

from flows.resilient_fetch import resilient_fetch
from tasks.circuit import CircuitOpen, HostCircuit

pytestmark = pytest.mark.usefixtures("prefect_url")

CHECKOUT = Path(__file__).resolve().parents[3]
AT_ONCE = 6

# One process of several runs at once, told to begin with the others by a line on standard input.
RUNS = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
from flows.resilient_fetch import resilient_fetch
url, count, rest = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
def fetch(_):
    state = resilient_fetch(url, first_pause_seconds=0, rest_seconds=rest, return_state=True)
    return [state.type.value, str(state.message)]
with ThreadPoolExecutor(count) as pool:
    print(json.dumps(list(pool.map(fetch, range(count)))), flush=True)
"""


class Web:
    """A web server that fails or works, and can hold its answers back."""

    def __init__(self) -> None:
        self.status = 503
        self.asked = 0
        self.held = threading.Event()
        self.held.set()
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.asked += 1
                while not web.held.wait(5):  # the flow gives up on a server that is silent for 30 s
                    self.wfile.write(b"HTTP/1.1 102 Processing\r\n\r\n")
                self.send_response(web.status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.url = f"http://127.0.0.1:{self.server.server_port}/file.txt"


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()
    thread = threading.Thread(target=web.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield web
    web.held.set()
    web.server.shutdown()
    thread.join()
    web.server.server_close()


def fetch(web: Web, *, rest_seconds: float = 3600) -> State[Any]:
    state: State[Any] = resilient_fetch(web.url, first_pause_seconds=0, rest_seconds=rest_seconds, return_state=True)
    return state


def notes(prefect: SyncPrefectClient, web: Web) -> Counter[str]:
    """The notes about the web server, by their kinds."""
    body = {"variables": {"tags": {"all_": ["circuit"]}}, "limit": 200}
    found = prefect.request("POST", "/variables/filter", json=body).json()
    return Counter(one["value"]["kind"] for one in found if one["value"]["host"] == web.host)


def note(prefect: SyncPrefectClient, web: Web, kind: str, run: str, *, seconds_ago: float = 0.001) -> None:
    """What a run with that id would have told the others."""
    circuit = HostCircuit(web.host, rest=timedelta(0))
    at = (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat()
    name = f"{circuit._prefix}_{kind}" + ("" if kind == "probe" else f"_{run}")
    value = {"kind": kind, "host": web.host, "run": run, "at": at}
    prefect.create_variable(VariableCreate(name=name, value=value, tags=["circuit", circuit._prefix]))


def open_circuit(prefect: SyncPrefectClient, web: Web, *, seconds_ago: float = 0.001) -> None:
    for number in range(3):
        note(prefect, web, "failure", f"earlier_{number}", seconds_ago=seconds_ago)


def test_a_host_is_left_alone_after_three_failures_in_a_row_and_then_tried_once(
    web: Web, home: Path, prefect: SyncPrefectClient
) -> None:
    for _ in range(3):
        assert "answered 503" in str(fetch(web).message)
    assert web.asked == 15
    assert "failed in 3 runs in a row and is left alone until" in str(fetch(web).message)
    assert web.asked == 15
    assert "answered 503" in str(fetch(web, rest_seconds=0).message)
    assert web.asked == 20
    assert "is left alone until" in str(fetch(web).message)
    web.status = 200
    assert fetch(web, rest_seconds=0).is_completed()
    assert notes(prefect, web) == {}


def test_a_success_between_failures_begins_the_count_anew(web: Web, home: Path) -> None:
    for status in (503, 503, 200, 503, 404, 503, 503):
        web.status = status
        assert "left alone" not in str(fetch(web).message)


def test_failures_at_the_same_time_are_all_counted(web: Web, home: Path, prefect: SyncPrefectClient) -> None:
    web.held.clear()
    with ThreadPoolExecutor(3) as pool:
        states = [pool.submit(fetch, web) for _ in range(3)]
        while web.asked < 3:  # all three are in the middle of it
            threading.Event().wait(0.02)
        web.held.set()
        assert all("answered 503" in str(state.result().message) for state in states)
    assert notes(prefect, web) == {"failure": 3}
    assert "left alone until" in str(fetch(web).message)


def test_many_failures_leave_no_more_notes_than_are_needed(web: Web, home: Path, prefect: SyncPrefectClient) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda _: fetch(web, rest_seconds=0), range(AT_ONCE)))
    assert notes(prefect, web) == {"failure": 3}


def test_one_run_of_many_in_several_processes_tries_the_host_again(
    web: Web, home: Path, prefect: SyncPrefectClient, prefect_url: str
) -> None:
    open_circuit(prefect, web)
    before = web.asked
    command = [sys.executable, "-c", RUNS, web.url, str(AT_ONCE), "0"]
    env = {**os.environ, "PREFECT_API_URL": prefect_url, "SLUICE_HOME": str(home)}
    processes = [
        subprocess.Popen(command, cwd=CHECKOUT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        web.status = 404  # it works, and says no: every run that reaches it asks once
        web.held.clear()
        for process in processes:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        # The one that may try is held; all the others give up meanwhile, whichever process they are in.
        body = {
            "flows": {"name": {"any_": ["resilient-fetch"]}},
            "flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}},
        }
        while web.asked == before or prefect.request("POST", "/flow_runs/count", json=body).json() > 1:
            threading.Event().wait(0.1)
        assert web.asked == before + 1
        web.held.set()
        ended = [
            end for process in processes for end in json.loads(process.communicate(timeout=240)[0].splitlines()[-1])
        ]
    finally:
        web.held.set()
        for process in processes:
            process.kill()
            process.wait()
    said = Counter("tried by another" if "is being tried by the run" in message else message for _, message in ended)
    assert len(ended) == 2 * AT_ONCE
    assert said["tried by another"] == 2 * AT_ONCE - 1, said
    assert web.asked == before + 1
    assert notes(prefect, web) == {}


def test_a_run_that_died_while_it_tried_makes_room_for_the_next(
    web: Web, home: Path, prefect: SyncPrefectClient
) -> None:
    open_circuit(prefect, web)
    note(
        prefect,
        web,
        "probe",
        str(prefect.create_flow_run(resilient_fetch, parameters={"url": web.url}, state=Crashed()).id),
    )
    web.status = 200
    with ThreadPoolExecutor(AT_ONCE) as pool:
        states = list(pool.map(lambda _: fetch(web, rest_seconds=0), range(AT_ONCE)))
    assert any(state.is_completed() for state in states)
    assert notes(prefect, web) == {}


def test_a_run_that_lives_keeps_its_turn_however_long_it_takes(
    web: Web, home: Path, prefect: SyncPrefectClient
) -> None:
    open_circuit(prefect, web)
    before = web.asked
    web.status = 200
    web.held.clear()
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(fetch, web, rest_seconds=0)
        while web.asked == before:
            threading.Event().wait(0.02)
        assert "is being tried by the run" in str(fetch(web, rest_seconds=0).message)
        web.held.set()
        assert long.result().is_completed()
    assert fetch(web).is_completed()


class Slow(HostCircuit):
    """Between reading the notes and asking for its turn, something happens."""

    meanwhile: Callable[[], None]

    def _take_probe(self, client: SyncPrefectClient) -> None:
        self.meanwhile()
        super()._take_probe(client)


def test_a_run_that_gets_its_turn_late_heeds_what_the_one_before_it_found(web: Web, prefect: SyncPrefectClient) -> None:
    open_circuit(prefect, web, seconds_ago=61)
    slow = Slow(web.host, rest=timedelta(seconds=60))
    slow.meanwhile = lambda: note(prefect, web, "failure", "meanwhile")
    with pytest.raises(CircuitOpen, match="left alone until"):
        slow.enter()
    assert notes(prefect, web) == {"failure": 4}
    slow = Slow(web.host, rest=timedelta(0))
    slow.meanwhile = lambda: HostCircuit(web.host, rest=timedelta(0)).answered()
    slow.enter()  # it works again: nobody needs a turn
    assert notes(prefect, web) == {}
