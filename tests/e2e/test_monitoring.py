"""The service as an operator's tools see it: traces, metrics and logs of real processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from demo.installation import Installation
from tests.e2e.test_whole_path import drop, ended, order, run_named
from tests.support.collector import CollectedSpan, Collector

pytestmark = pytest.mark.timeout(600)

TRACE = "0af7651916cd43dd8448eb211c80319c"
PUBLISHER = "b7ad6b7169203331"


def below(parent: CollectedSpan, spans: list[CollectedSpan]) -> list[CollectedSpan]:
    return [span for span in spans if span.parent == parent.id]


def test_a_trace_goes_from_the_publisher_through_the_journal_into_the_tasks(
    installation: Installation, collector: Collector
) -> None:
    event = order("traced") | {"traceparent": f"00-{TRACE}-{PUBLISHER}-01"}
    headers = {"authorization": f"Bearer {installation.access['SLUICE_API_TOKEN']}"}
    api = installation.access["SLUICE_API_URL"]
    assert httpx.post(f"{api}/events", json=event, headers=_as_event(headers)).is_success
    run = run_named(installation, "order-approval", "traced")
    installation.sluice("signals", "send", "--key", "order-traced", "--input", '{"approved": true}')
    assert ended(installation, "order-approval", run["id"])["type"] == "COMPLETED"

    steps = ("sluice receive", "sluice journal", "sluice route", "sluice create", run["name"])

    def complete() -> list[CollectedSpan] | None:
        spans = collector.trace(TRACE)
        return spans if set(steps) <= {span.name for span in spans} else None

    spans = installation.until(complete, "the spans of all steps have come")
    receive, journal, route, create, flow = (next(span for span in spans if span.name == step) for step in steps)
    assert (receive.parent, journal.parent, route.parent) == (PUBLISHER, receive.id, PUBLISHER)
    assert (create.parent, flow.parent) == (route.id, create.id)
    assert [span.role for span in (receive, route, create, flow)] == ["api", "router", "router", "executor"]
    assert create.attributes["sluice.run_id"] == run["id"] == flow.attributes["prefect.run.id"]
    assert below(flow, spans), "tasks are below their flow"
    assert not [span for span in spans if span.failed]


def test_a_file_begins_a_trace_of_its_own(installation: Installation, collector: Collector, inbox: Path) -> None:
    drop(inbox, "traced.csv", "city,people\nOslo,700000\n")
    run = run_named(installation, "ingest-file", "traced.csv")
    assert ended(installation, "ingest-file", run["id"])["type"] == "COMPLETED"

    def flow() -> CollectedSpan | None:
        return next(iter(collector.named(run["name"])), None)

    def of(name: str) -> CollectedSpan | None:
        return next((span for span in collector.trace(run_span.trace) if span.name == name), None)

    run_span = installation.until(flow, "the span of the run has come")
    receive = installation.until(lambda: of("sluice receive"), "the span of its receipt has come")
    route = installation.until(lambda: of("sluice route"), "the span of its decision has come")
    assert (receive.parent, receive.attributes["sluice.subject"]) == ("", "traced.csv")
    assert route.parent == receive.id
    assert route.attributes["sluice.event_id"] == receive.attributes["sluice.event_id"]


def _as_event(headers: dict[str, Any]) -> dict[str, Any]:
    return headers | {"content-type": "application/cloudevents+json"}
