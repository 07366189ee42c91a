"""Lists flow runs, and counts them by state: `sluice runs list`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from config.health import is_canary
from events.errors import ConfigError
from events.suggest import did_you_mean
from services.prefect_api.client import PrefectApi
from services.prefect_api.deployments import every_body
from services.prefect_api.run_calls import TYPES, rows_of

STATE_NAMES: Final = (
    "Late", "Suspended", "Resuming", "Retrying", "AwaitingRetry", "AwaitingConcurrencySlot", "TimedOut", "Cached"
)  # fmt: skip
"""Prefect's names of states beside their types; a flow may use names of its own, which only its runs show."""

_SOON: Final = timedelta(minutes=1)
"""How far the clock of a Prefect server may be ahead of ours, so that its present runs do not count as later ones."""
_EVER: Final = timedelta(days=36_500)


@dataclass(frozen=True, slots=True)
class RunQuery:
    """A query of runs; criteria that are not given do not restrict it."""

    deployment: str | None = None
    """``flow/deployment``, or a flow alone."""
    states: tuple[str, ...] = ()
    """Types or names of states, in any letter case; one of them."""
    tags: tuple[str, ...] = ()
    """All of them."""
    run_ids: tuple[str, ...] | None = None
    since: datetime | None = None
    """By the run's scheduled start, like ``until``, which is not included."""
    until: datetime | None = None
    """None: runs scheduled for later are left out, unless ``states`` are given."""


async def list_runs(api: PrefectApi, query: RunQuery, *, limit: int) -> list[dict[str, Any]]:
    """Return the newest runs first. Raises `ConfigError` for a state, a flow or a deployment that does not exist."""
    body = {**await _filters(api, query), "sort": "EXPECTED_START_TIME_DESC"}
    found = await api.pages("/flow_runs/filter", body, limit=limit)
    if query.deployment is None and query.run_ids is None and not query.tags:  # the canary's are listed only on request
        found = [run for run in found if not is_canary(run["name"])]
    if not found and query.deployment is not None:
        await _demand_deployment(api, query.deployment)
    return await rows_of(api, found)


async def count_by_state(api: PrefectApi, query: RunQuery) -> dict[str, int]:
    """Return the number of runs in each state, by the states' names, the most frequent first."""
    now = datetime.now(UTC)
    asked = {
        **await _filters(api, query),
        "history_start": (query.since or now - _EVER).isoformat(),
        "history_end": (query.until or now + _EVER).isoformat(),
        "history_interval_seconds": (2 * _EVER).total_seconds(),  # one interval: all of the time
    }
    counts: Counter[str] = Counter()
    for interval in await api.request("POST", "/flow_runs/history", json=asked):
        for state in interval["states"]:
            counts[state["state_name"] or "-"] += state["count_runs"]
    return dict(sorted(counts.items(), key=lambda one: (-one[1], one[0])))


async def is_tag_used(api: PrefectApi, tag: str) -> bool:
    """Whether any run, whatever its time and state, has the tag."""
    return bool(await api.request("POST", "/flow_runs/count", json={"flow_runs": {"tags": {"all_": [tag]}}}))


async def _filters(api: PrefectApi, query: RunQuery) -> dict[str, Any]:
    """Return the query as filters of Prefect's API.

    Without a state and an end, runs scheduled for later are left out: an interval schedule has hundreds.
    """
    until = query.until or (None if query.states else datetime.now(UTC) + _SOON)
    runs: dict[str, Any] = {}
    times = {"after_": query.since, "before_": until}
    if any(times.values()):
        runs["expected_start_time"] = {name: at.isoformat() for name, at in times.items() if at}
    if query.states:
        runs["state"] = await _states(api, query.states)
    if query.tags:
        runs["tags"] = {"all_": list(query.tags)}
    if query.run_ids is not None:
        runs["id"] = {"any_": list(query.run_ids)}
    filters: dict[str, Any] = {"flow_runs": runs}
    if query.deployment is not None:
        flow, _, name = query.deployment.partition("/")
        filters["flows"] = {"name": {"any_": [flow]}}
        if name:
            filters["deployments"] = {"name": {"any_": [name]}}
    return filters


async def _states(api: PrefectApi, states: Sequence[str]) -> dict[str, Any]:
    """Return the filter of states, given by type or by name, in any case; raises `ConfigError` for an unknown one.

    Names that are not Prefect's own are looked up among those of existing runs, because flows may choose them.
    """
    types = [state.upper() for state in states if state.upper() in TYPES]
    others = [state for state in states if state.upper() not in TYPES]
    names: list[str] = []
    if others:
        known = {name.lower(): name for name in STATE_NAMES}
        if not {state.lower() for state in others} <= set(known):
            known |= {
                name.lower(): name for name in await count_by_state(api, RunQuery(until=datetime.now(UTC) + _EVER))
            }
        if unknown := [state for state in others if state.lower() not in known]:
            valid = sorted({*(type_.lower() for type_ in TYPES), *known})
            msg = f"--state {unknown[0]!r} is no state that a run is in: choose from {', '.join(valid)}"
            raise ConfigError(msg)
        names = [known[state.lower()] for state in others]
    return {
        "operator": "or_",
        **({"type": {"any_": types}} if types else {}),
        **({"name": {"any_": names}} if names else {}),
    }


async def _demand_deployment(api: PrefectApi, wanted: str) -> None:
    """Raise `ConfigError` if there is no flow, or no deployment, of that name."""
    flow, _, deployment = wanted.partition("/")
    body = {"flows": {"name": {"any_": [flow]}}, "limit": 1}
    there: Sequence[Mapping[str, Any]] = await api.request("POST", "/flows/filter", json=body)
    names = list(await every_body(api))
    if not there:
        flows = [name.partition("/")[0] for name in names]
        known = [*names, *flows] if deployment else flows
        raise ConfigError(f"--deployment {wanted!r}: there is no flow {flow!r}: {did_you_mean(wanted, known)}")
    if deployment and wanted not in names:
        raise ConfigError(f"--deployment {wanted!r}: there is no such deployment: {did_you_mean(wanted, names)}")
