"""Creates flow runs: the requests for dispatches, and the meaning of the bulk endpoint's responses."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from pydantic import JsonValue

from events.action import RUN_NAME_LIMIT, RunDeployment
from events.errors import NotFound, Refused, RejectedEvent, TransientError
from events.identity import id_of, identity_of
from events.untrusted_json import has_nul, refuse_hydration
from services.prefect_api.client import PrefectApi
from services.prefect_api.compat import TRACE_LABEL
from services.prefect_api.deployments import Deployment
from sluice.display import visible

HEALTH_SECONDS: Final = 10.0
"""How long the question whether Prefect is healthy waits: no run is created meanwhile, and a server that is gone, or a
connection that it has forgotten, never answers."""

TAG_LIMIT: Final = 300
_TAGGED_EVENTS: Final = 10
"""A run of many events is tagged with the first ones; the history holds all of them."""

# The answers that are about the moment and not about the run. All are texts of the databases and their drivers.
_TRANSIENT: Final = (
    "database is locked",
    "database table is locked",
    "deadlock",
    "could not serialize",
    "timeout",
    "timed out",
    "connection",
    "queuepool",
    "too many clients",
    "disk i/o error",
    "database or disk is full",
    "no space left",
    "server is shutting down",
)
# The answers that Prefect gives before it touches the database: they say nothing about the other items.
_REFUSED: Final = (
    "parameter validation failed",
    "parameter schema enforcement is enabled",
    "invalid schema",
    "error creating flow run",
    "cannot create flow run in work queue",
)


class CreationResult(StrEnum):
    """The result of one run in a bulk call."""

    CREATED = "created"
    REFUSED = "refused"
    """Prefect will never accept this run."""
    RETRY = "retry"
    """A transient failure: send the same item again later."""
    ALONE = "alone"
    """It failed for an unknown reason: send it alone, to distinguish its fault from its neighbours'."""
    FAILED = "failed"
    """It failed alone, and as far as known not for a transient reason: repeat it only a few times."""


@dataclass(frozen=True, slots=True)
class Result:
    """One item's result: its ``run_id`` if it was created, else what Prefect ``said``, and a ``code``."""

    fate: CreationResult
    run_id: str = ""
    said: str = ""
    code: str = "prefect-failed"
    answered: bool = True
    """Whether Prefect said so itself; otherwise the call's result is unknown."""


def run_request(
    action: RunDeployment,
    *,
    source: str,
    file: Mapping[str, JsonValue] | None,
    has_work_pool: bool,
    max_parameter_bytes: int,
    trace: str | None = None,
) -> dict[str, Any]:
    """Return the body that creates the run; raises `RejectedEvent` for parameters that Prefect must not or cannot get.

    Names and tags are escaped and cut to length; parameters are never changed. ``trace`` (a ``traceparent``) names the
    parent of the run's spans.
    """
    refuse_hydration(action.parameters)
    refuse_hydration(action.job_variables)
    written = json.dumps(action.parameters, ensure_ascii=False)
    if len(written.encode()) > max_parameter_bytes:
        msg = (
            f"the parameters have {len(written.encode())} bytes as JSON; at most {max_parameter_bytes} are sent "
            "(dispatcher.max_parameter_bytes; Prefect has a limit of its own, PREFECT_SERVER_API_MAX_PARAMETER_SIZE)"
        )
        raise RejectedEvent("parameters-too-large", msg)
    if "\\u0000" in written and has_nul([action.parameters, action.job_variables]):
        raise RejectedEvent("nul-character", "a parameter holds the character U+0000, which Prefect's database refuses")
    job_variables = dict(action.job_variables)
    if file is not None and not has_work_pool:
        job_variables["sluice_file"] = dict(file)
    body: dict[str, Any] = {
        "parameters": action.parameters,
        "idempotency_key": action.idempotency_key,
        "tags": tags_of(action, source),
    }
    when = _scheduled(action)
    if when is not None:
        body["state"] = {"type": "SCHEDULED", "state_details": {"scheduled_time": when.isoformat()}}
    if action.run_name:
        body["name"] = visible(action.run_name, RUN_NAME_LIMIT)
    if job_variables:
        body["job_variables"] = job_variables
    if trace is not None:
        body["labels"] = {TRACE_LABEL: trace}
    if action.work_queue:
        body["work_queue_name"] = action.work_queue
    return body


def tags_of(action: RunDeployment, source: str) -> list[str]:
    """Return the rule's own tags, and those by which a run is found: rule, source and events."""
    ours = ["sluice", f"rule:{action.rule}", f"source:{source}"]
    ours += [f"event:{id_of(identity)}" for identity in action.identities[:_TAGGED_EVENTS]]
    return list(dict.fromkeys(visible(tag, TAG_LIMIT) for tag in (*ours, *action.tags)))


async def create_runs(api: PrefectApi, deployment: Deployment, bodies: Sequence[Mapping[str, Any]]) -> list[Result]:
    """Create at most 100 runs in one call; the results are in the order of ``bodies``.

    Raises `TransientError` if all results are unknown (send all again: the keys make that safe), `NotFound` if the
    deployment does not exist, and `Refused` if Prefect refuses the call as a whole, which may be the fault of one item.
    """
    answer = await api.request(
        "POST", f"/deployments/{deployment.id}/create_flow_run/bulk", once=True, json=[dict(body) for body in bodies]
    )
    results = [_result(item, alone=len(bodies) == 1) for item in answer["results"]]
    if len(results) != len(bodies):
        msg = f"Prefect answered {len(results)} results for {len(bodies)} runs"
        raise TransientError(msg)
    if any(result.fate not in {CreationResult.CREATED, CreationResult.REFUSED} for result in results):
        return await _verified(api, results)
    return results


async def run_of(api: PrefectApi, action: RunDeployment) -> str | None:
    """Return the run that was created for the action, if there is one; raises `TransientError`."""
    flow = action.deployment.partition("/")[0]  # the key is unique for each flow
    body = {
        "flows": {"name": {"any_": [flow]}},
        "flow_runs": {"idempotency_key": {"any_": [action.idempotency_key]}},
        "limit": 1,
    }
    found = await api.request("POST", "/flow_runs/filter", once=True, json=body)
    return str(found[0]["id"]) if found else None


async def origins_of(api: PrefectApi, run_id: str) -> list[str]:
    """Return the identities of the events in the run's tags, as `tags_of` wrote them; raises `NotFound`.

    A run of many events names the first ones, and one source for all of them.
    """
    try:
        tags = (await api.request("GET", f"/flow_runs/{uuid.UUID(run_id)}", once=True))["tags"]
    except ValueError:
        return []
    named = [tag.partition(":") for tag in tags]
    ids = [rest for name, _, rest in named if name == "event"]
    return [identity_of(source, id_) for name, _, source in named if name == "source" for id_ in ids]


async def healthy(api: PrefectApi, *, within_seconds: float = HEALTH_SECONDS) -> bool:
    """Whether Prefect answers within that time."""
    try:
        async with asyncio.timeout(within_seconds):
            await api.request("GET", "/health", once=True)
    except (TransientError, NotFound, Refused, TimeoutError):
        return False
    return True


async def _verified(api: PrefectApi, results: list[Result]) -> list[Result]:
    """Check the results of a call in which an item failed inside the database.

    The whole call may have been rolled back, whatever the other results say.
    """
    claimed = [result.run_id for result in results if result.fate is CreationResult.CREATED]
    if not claimed:
        return results
    rows = await api.request(
        "POST", "/flow_runs/filter", once=True, json={"flow_runs": {"id": {"any_": claimed}}, "limit": 200}
    )
    there = {row["id"] for row in rows}
    return [
        result
        if result.fate is not CreationResult.CREATED or result.run_id in there
        else Result(CreationResult.RETRY, said="undone with the call")
        for result in results
    ]


def _result(item: Mapping[str, Any], *, alone: bool) -> Result:
    """Return the result for one run of a bulk call.

    A failed run is tried again alone, because another run of the call may have caused the error.
    """
    if item["status"] == "CREATED":
        return Result(CreationResult.CREATED, run_id=item["flow_run_id"])
    said = str(item.get("error") or "Prefect gave no reason")[:2000]
    words = said.lower()
    if words.startswith(_REFUSED):
        code = "parameters-refused" if words.startswith("parameter validation") else "prefect-refused"
        return Result(CreationResult.REFUSED, said=said, code=code)
    if any(part in words for part in _TRANSIENT):
        return Result(CreationResult.RETRY, said=said)
    return Result(CreationResult.FAILED if alone else CreationResult.ALONE, said=said)


def _scheduled(action: RunDeployment) -> datetime | None:
    at = action.scheduled_at
    if at is None and action.scheduled_seconds > 0:
        at = datetime.now(UTC) + timedelta(seconds=action.scheduled_seconds)
    return at
