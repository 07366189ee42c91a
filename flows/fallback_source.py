"""Degradation: today's prices from the primary source, else from the fallback, and a mark that says so.

Needs the two addresses. Who reads the result, the state or the tag knows that the run was degraded.
"""

from __future__ import annotations

from typing import Any

import httpx
from prefect import State, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from sluice import run_name, visible
from tasks.fallback import first_that_works
from tasks.retries import NETWORK, Unavailable


@task(**NETWORK, cache_policy=NO_CACHE, task_run_name="get prices")
def prices(url: str) -> dict[str, float]:
    """The prices that an address serves as a JSON object."""
    answer = httpx.get(url, timeout=10)
    if answer.is_server_error:
        raise Unavailable(visible(f"{url} answered {answer.status_code}"))
    answer.raise_for_status()
    return {str(name): float(price) for name, price in answer.json().items()}


@flow(name="fallback-source", flow_run_name=run_name("prices from {primary}"))
def fallback_source(primary: str, fallback: str, first_pause_seconds: float = 1.0) -> State[dict[str, Any]]:
    """Get the prices from ``primary``, tried again after growing pauses, else from ``fallback``.

    Needs two addresses that serve a JSON object of prices. The result and the state's message say which one it was and
    why; the run fails only if neither can be had.
    """
    patient = prices.with_options(retry_delay_seconds=[first_pause_seconds * 2**attempt for attempt in range(4)])
    found = first_that_works(
        {
            "primary": lambda: patient(primary, return_state=True),
            "fallback": lambda: patient(fallback, return_state=True),
        }
    )
    data = {"prices": found.value, "source": found.source, "degraded": found.degraded}
    if found.degraded:
        why = "; ".join(found.failed.values())
        return Completed(message=visible(f"degraded, from the {found.source}: {why}", 1000), data=data)
    return Completed(message=f"{len(found.value)} prices from the {found.source}", data=data)
