"""What happened in a day: events, runs, failures by reason, dead letters, the slowest, and who waits.

Needs the `sluice` command and its home. Every morning at seven in Berlin, outside development; the report is an
artifact, and goes to the webhook of the environment if there is one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from prefect import State, flow, get_client, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from sluice import in_markdown, run_name
from tasks.installation import ask_sluice
from tasks.notifying import deliver, environment, webhook, webhook_token

DEPLOYMENT: Final = {
    "cron": "0 7 * * *",
    "timezone": "Europe/Berlin",
    "environments": {"development": {"cron": None}},
}
PAGE: Final = 200
MOST: Final = 10_000
SHOWN: Final = 5
WIDTH: Final = 20


@task(cache_policy=NO_CACHE)
def runs_of(since: datetime) -> list[dict[str, Any]]:
    """The runs that began or ended since then, or wait, at most `MOST` of them, each with the name of its flow."""
    after = {"after_": str(since)}
    where = {"operator": "or_", "start_time": after, "end_time": after, "state": {"type": {"any_": ["PAUSED"]}}}
    found: list[dict[str, Any]] = []
    with get_client(sync_client=True) as client:
        while len(found) < MOST:
            body = {"flow_runs": where, "sort": "START_TIME_DESC", "limit": PAGE, "offset": len(found)}
            page = client.request("POST", "/flow_runs/filter", json=body).json()
            found += page
            if len(page) < PAGE:
                break
        names = {flow_id: client.read_flow(UUID(flow_id)).name for flow_id in {run["flow_id"] for run in found}}
    return [run | {"flow": names[run["flow_id"]]} for run in found]


@task(cache_policy=NO_CACHE)
def history_of(hours: int) -> dict[str, list[dict[str, Any]]]:
    """Sluice's own records: events and dead letters."""
    since = ("--since", f"{hours}h", "--limit", str(MOST))
    return {"events": ask_sluice("events", "list", *since), "dead": ask_sluice("dead", "list", *since)}


@task(cache_policy=NO_CACHE)
def report(hours: int, runs: list[dict[str, Any]], events: list[dict[str, Any]], dead: list[dict[str, Any]]) -> str:
    """The report as Markdown."""
    failed = [run for run in runs if run["state_type"] in {"FAILED", "CRASHED"}]
    slowest = sorted(runs, key=lambda run: -run["total_run_time"])[:SHOWN]
    waiting = [run for run in runs if run["state_type"] == "PAUSED"]
    parts = [
        f"# The last {hours} hours",
        f"{len(events)} events, {len(runs)} runs ({len(failed)} failed), {len(waiting)} waiting, {len(dead)} dead",
        chart("Events by type", Counter(str(event["type"]) for event in events)),
        chart("Runs by flow", Counter(run["flow"] for run in runs)),
        chart("Runs by state", Counter(str(run["state_name"]) for run in runs)),
        chart("Failures by reason", Counter(reason(run["state"].get("message")) for run in failed)),
        chart("Dead letters by code", Counter(str(letter["code"]) for letter in dead)),
        listing("Slowest runs", [(run["name"], f"{run['total_run_time']:.1f} s ({run['flow']})") for run in slowest]),
        listing("Waiting", [(run["name"], ", ".join(run["tags"]) or run["flow"]) for run in waiting]),
    ]
    return "\n\n".join(part for part in parts if part)


def reason(message: str | None) -> str:
    """The first line of a state's message, in which what differs from run to run (numbers, quoted text) is left out."""
    first = (message or "no message").splitlines()[0]
    return re.sub(r"'[^']*'|\d+", "…", first)[:100]


def chart(title: str, counts: Mapping[str, int]) -> str:
    """Bars of text, which any screen and any chat shows; nothing where nothing was counted."""
    if not counts:
        return ""
    most = max(counts.values())
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    rows = [
        f"| {in_markdown(name)} | {count} | {'█' * round(WIDTH * count / most) or '▏'} |" for name, count in ordered
    ]
    return "\n".join([f"## {title}", "", "| | | |", "| --- | ---: | --- |", *rows])


def listing(title: str, lines: Iterable[tuple[str, str]]) -> str:
    """A list; nothing where there is nothing."""
    rows = [f"- {in_markdown(name)}: {in_markdown(text)}" for name, text in lines]
    return "\n".join([f"## {title}", "", *rows]) if rows else ""


@flow(name="daily-report", flow_run_name=run_name("report of {hours} h"))
def daily_report(hours: int = 24) -> State[str]:
    """Report on the last ``hours``: events, runs, failures by reason, dead letters, the slowest runs, who waits.

    Needs the `sluice` command and its home; the webhook of the environment is optional.
    """
    history = history_of(hours)
    markdown = report(hours, runs_of(datetime.now(UTC) - timedelta(hours=hours)), history["events"], history["dead"])
    create_markdown_artifact(markdown, key="daily-report", description=f"Environment {environment()}")
    url = webhook()
    if url is not None:
        deliver(url, webhook_token(), {"text": markdown, "severity": "info", "environment": environment()})
    return Completed(message=f"reported{'' if url is None else ' and sent'}: {markdown.splitlines()[2]}", data=markdown)


if __name__ == "__main__":
    daily_report()
