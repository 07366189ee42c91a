"""Traces cost nothing where nobody wants them, and nothing that comes from outside breaks them."""

from __future__ import annotations

import os
import subprocess
import sys

from config.settings import CHECKOUT
from tests.support.collector import collecting

SCRIPT = """
import os, sys, time
from datetime import UTC, datetime
from events.event import Event
from services.common.telemetry import tracing

def event(id_, **extensions):
    return Event(id=id_, source="s", type="t", time=datetime.now(UTC), extensions=extensions)

tracing.set_up(os.environ, role="drill")
tracing.heard("00-" + "1" * 32 + "-" + "2" * 16 + "-01\\n")
with tracing.receiving("redis:x", [event("nonsense", traceparent="nonsense"), event("none")]) as taken:
    print([one.extensions.get("traceparent", "-")[:12] for one in taken])
tracing.heard("00-" + "1" * 32 + "-" + "2" * 16 + "-01")
try:
    with tracing.receiving("http:x", [event("heard")]) as taken:
        print(taken[0].extensions.get("traceparent"))
        raise OSError("away")
except OSError:
    pass
print(any(name.startswith("opentelemetry") for name in sys.modules))
"""


def run(script: str = SCRIPT, **environment: str) -> list[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=CHECKOUT, env=kept | environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_without_a_collector_nothing_of_opentelemetry_is_imported() -> None:
    assert run() == ["['nonsense', '-']", "None", "False"]
    for off in ({"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}):
        assert run(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", **off)[-1] == "False"


def test_packages_that_are_not_installed_are_told_and_cost_the_traces_alone() -> None:
    without = "import sys\nsys.modules['opentelemetry.sdk'] = None\n" + SCRIPT
    warning, *said = run(without, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert "the packages for them are not installed" in warning
    assert "sluice-events[service,traces]" in warning
    assert said[:2] == ["['nonsense', '-']", "None"]


def test_what_is_no_trace_begins_one_and_what_fails_says_so() -> None:
    with collecting() as collector:
        said = run(OTEL_EXPORTER_OTLP_ENDPOINT=collector.address)
    assert said[0].startswith("['nonsense', '00-")
    assert said[1:] == [f"00-{'1' * 32}-{'2' * 16}-01", "True"]
    (nonsense,) = collector.named("sluice receive", event_id="nonsense")
    (none,) = collector.named("sluice receive", event_id="none")
    (heard,) = collector.named("sluice receive", event_id="heard")
    assert (nonsense.parent, none.parent, heard.parent) == ("", "", "2" * 16)
    assert none.trace == said[0].split("'")[3].split("-")[1] + none.trace[9:]
    assert (heard.failed, none.failed) == (True, False)
    assert [span.parent for span in collector.named("sluice journal", event_id="heard")] == [heard.id]
