"""The flows of the course (docs/flows.md), each as its section says, against a real Prefect server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.flow_engine import run_flow

from flows.basic_pipeline import basic_pipeline
from flows.batches_and_caching import batches_and_caching
from flows.branches import branches
from flows.fallback_source import fallback_source
from flows.fan_out import fan_out
from flows.task_runners import task_runners
from tests.integration.flows.conftest import run_id

pytestmark = pytest.mark.usefixtures("prefect_url")
Artifacts = Callable[[Any], dict[str | None, Any]]


def test_the_basic_pipeline_hands_data_from_task_to_task() -> None:
    state = basic_pipeline(["# name,amount", " apples, 1.5 ", "", "pears,2"], return_state=True)
    assert state.message == "2 records, together 3.5"
    assert state.result() == 3.5


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["apples 3"], "'apples 3' has no comma: write name,amount"),
        (["apples,three"], "'three' in 'apples,three' is not a number"),
        (["a,1", "a,-2"], "the amount of a is negative; a comes more than once"),
        (["# nothing"], "there are no records"),
    ],
)
def test_what_is_wrong_is_said_in_words(lines: list[str], said: str) -> None:
    state = basic_pipeline(lines, return_state=True)
    assert state.is_failed()
    assert said in str(state.message)


def test_one_bad_item_is_named_and_the_others_are_done(artifacts: Artifacts) -> None:
    state = fan_out(["1", "2", "three", "4"], return_state=True)
    assert state.is_completed()
    assert state.message == "3 of 4 items are done (75%); not done: three"
    assert state.result() == {"success_rate": 0.75, "bad": ["three"], "sum": 21.0}
    (row,) = artifacts(state)["fan-out-bad-items"]
    assert row["item"] == "three"
    assert "could not convert string to float" in row["reason"]


def test_too_many_bad_items_fail_the_run() -> None:
    state = fan_out(["1", "two"], least_success_rate=0.9, return_state=True)
    assert state.is_failed()
    assert "1 of 2 items are done (50%); not done: two" in str(state.message)


def test_no_items_are_all_done() -> None:
    assert fan_out([], return_state=True).message == "0 of 0 items are done (100%)"


def test_branches_go_by_type_and_by_content() -> None:
    orders = '[{"id": 1, "amount": 5}, {"id": 2, "amount": 10000}, {"id": 3, "amount": -1}]'
    assert branches(orders) == ["1 booked", "2 to be approved", "3 refunded"]
    assert branches("id,amount\n7,12.50\n", kind="csv") == ["7 booked"]
    assert "send json or csv" in str(branches("", kind="xml", return_state=True).message)
    state = branches('[{"id": 1}, {"id": 2, "amount": 1}]', return_state=True)
    assert state.is_failed()
    assert "1 orders have no id or no amount" in str(state.message)


def test_all_ways_of_running_tasks_do_all_of_them(artifacts: Artifacts, prefect: SyncPrefectClient) -> None:
    state = task_runners(count=2, wait_seconds=0.01, rounds=1000, return_state=True)
    assert state.is_completed(), state.message
    assert [row["way"] for row in artifacts(state)["task-runners"]] == ["in order", "threads", "asyncio", "processes"]


def test_a_batch_a_stream_and_a_cache_give_the_same_and_cost_less(artifacts: Artifacts) -> None:
    state = batches_and_caching(count=20_000, return_state=True)
    table = {row["way"]: row for row in artifacts(state)["batches-and-caching"]}
    assert {row["total"] for row in table.values()} == {sum(number % 100 for number in range(20_000))}
    assert table["in batches of 1000"]["peak MiB"] < table["whole"]["peak MiB"] / 2


@pytest.fixture
def servers() -> Iterator[Callable[[int, str], str]]:
    """Starts servers that answer every request with one status and body; gives their addresses."""
    started: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def start(status: int, body: str) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        started.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server, thread in started:
        server.shutdown()
        thread.join()
        server.server_close()


def test_what_comes_from_the_fallback_is_marked(servers: Callable[[int, str], str]) -> None:
    broken, works = servers(503, ""), servers(200, '{"apples": 3.5}')
    state = fallback_source(broken, works, first_pause_seconds=0, return_state=True)
    assert (state.name, str(state.message).partition(",")[0]) == ("Completed", "degraded")
    assert "from the fallback: " in str(state.message)
    assert "answered 503" in str(state.message)
    assert state.result() == {"prices": {"apples": 3.5}, "source": "fallback", "degraded": True}


def test_the_primary_source_is_enough_while_it_works(servers: Callable[[int, str], str]) -> None:
    state = fallback_source(servers(200, '{"apples": 3.5}'), "http://127.0.0.1:9/", return_state=True)
    assert (state.name, state.message) == ("Completed", "1 prices from the primary")


def test_where_neither_works_both_reasons_are_told(servers: Callable[[int, str], str]) -> None:
    state = fallback_source(servers(503, ""), servers(404, ""), first_pause_seconds=0, return_state=True)
    assert state.is_failed()
    assert "primary: " in str(state.message)
    assert "fallback: " in str(state.message)


def test_a_run_that_nobody_named_is_named_after_its_parameters_and_a_name_that_was_given_stays(
    prefect: SyncPrefectClient,
) -> None:
    named = prefect.read_flow_run(run_id(branches(kind="json", return_state=True)))
    assert named.name == "branches of a json document"
    for options in ({"name": "order 1042"}, {"name": "quiet-otter", "tags": ["rule:orders"]}):
        created = prefect.create_flow_run(branches, **options)
        run_flow(branches, flow_run=created, return_type="state")
        assert prefect.read_flow_run(created.id).name == options["name"]
