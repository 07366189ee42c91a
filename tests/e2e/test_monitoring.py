"""The service as an operator's tools see it: traces, metrics and logs of real processes."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from config.settings import CHECKOUT
from tests.e2e.test_whole_path import drop, ended, order, run_named
from tests.support.collector import CollectedSpan, Collector
from tests.support.installation import Installation

pytestmark = pytest.mark.timeout(600)

DEPLOY = CHECKOUT / "deploy"
TRACE = "0af7651916cd43dd8448eb211c80319c"
HEARD = "1af7651916cd43dd8448eb211c80319c"
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
    # The header of a request stands for the attribute that its event does not have.
    unmatched = {**order("heard"), "type": "nobody.asks.for.it"}
    headers |= {"traceparent": f"00-{HEARD}-{PUBLISHER}-01"}
    assert httpx.post(f"{api}/events", json=unmatched, headers=_as_event(headers)).is_success
    installation.until(lambda: len(collector.trace(HEARD)) == 3, "its spans have come")
    assert {span.name for span in collector.trace(HEARD)} == {"sluice receive", "sluice journal", "sluice route"}


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


def test_each_decision_is_one_line_with_its_ids_and_every_line_is_json(installation: Installation, inbox: Path) -> None:
    drop(inbox, "logged.csv", "city,people\nOslo,700000\n")
    run = run_named(installation, "ingest-file", "logged.csv")
    assert ended(installation, "ingest-file", run["id"])["type"] == "COMPLETED"
    (event_id,) = (tag.removeprefix("event:") for tag in run["tags"] if tag.startswith("event:"))

    def found(role: str, event: str, **ids: str) -> dict[str, Any] | None:
        wanted = {"event": event, "role": role, **ids}
        return next((line for line in lines_of(installation, role) if wanted.items() <= line.items()), None)

    for role, event, ids in (
        ("listeners", "file arrived", {"event_id": event_id}),
        ("router", "event decided", {"event_id": event_id}),
        ("router", "run created", {"event_id": event_id, "run_id": run["id"], "rule": "ingest-file"}),
        ("router", "run ended", {"run_id": run["id"], "rule": "ingest-file"}),
        ("executor", "Finished in state Completed()", {"run_id": run["id"], "level": "info"}),
    ):
        installation.until(lambda: found(role, event, **ids), f"{role} says {event!r}")  # noqa: B023 - called at once
    decided = found("router", "event decided", event_id=event_id) or {}
    assert (decided["rules"], decided["runs_of"]) == (["ingest-file"], ["ingest-file/default"])
    for role in ("listeners", "router", "resumer", "executor", "api"):
        for line in lines_of(installation, role):
            assert {"event", "role", "level", "timestamp"} <= set(line), line
    shown = [line for line in installation.output.read_text().splitlines() if line.startswith("{")]
    assert {json.loads(line)["role"] for line in shown} >= {"listeners", "router", "executor"}


def lines_of(installation: Installation, role: str) -> list[dict[str, Any]]:
    text = (installation.home / "logs" / f"{role}.log").read_text()
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


@pytest.fixture
def prometheus(installation: Installation, tmp_path: Path) -> Iterator[httpx.Client]:
    """A real one with the configuration that is in the repository, which scrapes the installation each second."""
    if shutil.which("prometheus") is None:
        pytest.skip("no Prometheus: apt-get install prometheus")
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port = door.getsockname()[1]
    for name in ("alerts.yaml", "prometheus.yaml"):
        shutil.copy(DEPLOY / "prometheus" / name, tmp_path / name)
    api = httpx.URL(installation.access["SLUICE_API_URL"] or "")
    given = (tmp_path / "prometheus.yaml").read_text().replace("127.0.0.1:4280", f"{api.host}:{api.port}")
    (tmp_path / "prometheus.yaml").write_text(given.replace("15s", "1s"))
    (tmp_path / "sluice.token").write_text(installation.access["SLUICE_API_TOKEN"] or "")
    options = {
        "config.file": "prometheus.yaml", "storage.tsdb.path": "data", "web.listen-address": f"127.0.0.1:{port}",
    }  # fmt: skip
    with (tmp_path / "log").open("wb") as log:
        words = ["prometheus", *(f"--{name}={value}" for name, value in options.items())]
        process = subprocess.Popen(words, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=30) as client:
            yield client
    finally:
        process.kill()
        process.wait()


def test_a_real_prometheus_scrapes_it_and_evaluates_every_alert_and_panel(
    installation: Installation, prometheus: httpx.Client
) -> None:
    def asked(path: str, **parameters: str) -> Any:
        try:
            answer = prometheus.get(path, params=parameters)
        except httpx.TransportError:
            return None
        return answer.json()["data"] if answer.is_success else None

    def value(expression: str) -> float | None:
        found = (asked("/query", query=expression) or {}).get("result")
        return float(found[0]["value"][1]) if found else None

    def evaluated() -> list[dict[str, Any]] | None:
        groups = (asked("/rules") or {}).get("groups", ())
        rules = [rule for group in groups for rule in group["rules"]]
        return rules if rules and all(rule["health"] != "unknown" for rule in rules) else None

    installation.until(lambda: value('up{job="sluice"}') == 1, "Prometheus has scraped it", pause_seconds=0.1)
    rules = installation.until(evaluated, "the alerts are evaluated", pause_seconds=0.1)
    assert {rule["health"] for rule in rules} == {"ok"}
    assert value("sum(sluice_role_ready)") == 5
    assert value('sluice_watch_up{watch="inbox"}') == 1
    assert value('sluice_runs_created_total{rule="ingest-file"}') is not None
    headers = {"authorization": f"Bearer {installation.access['SLUICE_API_TOKEN']}"}
    page = httpx.get(f"{installation.access['SLUICE_API_URL']}/metrics", headers=headers).text
    checked = subprocess.run(["promtool", "check", "metrics"], input=page, text=True, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    dashboard = json.loads((DEPLOY / "grafana" / "sluice.json").read_text())
    for target in (target for panel in dashboard["panels"] for target in panel.get("targets", ())):
        expression = target["expr"].replace("$__rate_interval", "1m").replace("$job", ".*")
        answer = prometheus.get("/query", params={"query": expression})
        assert answer.is_success, f"{expression}: {answer.text}"
