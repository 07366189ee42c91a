"""Compares the work pools of declared deployments with those that Prefect has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from prefect.utilities.schema_tools.validation import validate

from config.yaml_file import KeyPath
from events.suggest import did_you_mean
from services.deployments.declared import Declarations
from services.prefect_api.client import PrefectApi
from services.prefect_api.deployments import work_pools

_TEMPLATE: Final = "{{"
"""In a text that Prefect fills in when a run starts."""


@dataclass(frozen=True, slots=True)
class PoolFindings:
    """What does not fit, each as ``file:line: DEPLOYMENT.key: what is wrong — the fix``."""

    faults: tuple[str, ...]
    missing: Mapping[str, str]
    """The deployments whose work pool Prefect does not have, each with a sentence that says so."""

    @property
    def problems(self) -> list[str]:
        """All of them."""
        return [*self.faults, *self.missing.values()]


async def look_at_work_pools(api: PrefectApi, declarations: Declarations) -> PoolFindings:
    """Ask Prefect for the pools, if any is named. Raises `TransientError`."""
    named = [one for one in declarations.deployments if one.body["work_pool_name"] is not None]
    pools = await work_pools(api) if named else {}
    faults: list[str] = []
    missing: dict[str, str] = {}
    for one in named:
        name = one.body["work_pool_name"]
        if name not in pools:
            near = f"{did_you_mean(name, pools)} Else " if pools else ""
            fix = f"{near}make it: prefect work-pool create {name} --type process (docker, kubernetes, …)"
            missing[one.name] = f"{one.where_key(('work_pool',))}: Prefect has no work pool {name!r} — {fix}"
            continue
        for key, what in _misfits(one.body["job_variables"], pools[name]):
            faults.append(f"{one.where_key(key)}: {what}")
    return PoolFindings(tuple(faults), missing)


def _misfits(variables: Mapping[str, Any], pool: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Each job variable that the pool does not know, or takes in another form, and why."""
    schema = (pool.get("base_job_template") or {}).get("variables") or {}
    known = schema.get("properties") or {}
    shown = f"the work pool {pool['name']!r} (of the type {pool['type']})"
    for name, value in variables.items() if known else ():  # a pool that no worker has served has none yet
        key: KeyPath = ("job_variables", name)
        if name not in known:
            yield key, f"{shown} has no job variable {name!r}, so it tells nothing — {did_you_mean(name, known)}"
        elif not (isinstance(value, str) and _TEMPLATE in value):
            for error in validate({name: value}, dict(schema), ignore_required=True):
                yield key, f"{value!r} does not fit in {shown}: {error.message}"
                break
