"""Registers the deployments of ``flows/`` with Prefect."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from config.settings import CHECKOUT, Settings
from events.errors import ConfigError
from services.prefect_api.client import PrefectApi
from services.prefect_api.deployments import register


async def deploy_flows(prefect: PrefectApi, settings: Settings, *, root: Path = CHECKOUT) -> list[str]:
    """Create or update a deployment for every flow in ``root``/flows; answers a line for each.

    Nothing is registered when any file is at fault: raises `ConfigError` with every problem.
    """
    found = await asyncio.to_thread(_declared, root, str(settings.env))
    lines = []
    for flow, body in found:
        await register(prefect, flow=flow, body=body)
        lines.append(f"deployed {flow}/{body['name']} ({body['entrypoint']})")
    return lines


def _declared(root: Path, environment: str) -> list[tuple[str, dict[str, Any]]]:
    from services.executor.declared import declared  # imports Prefect's engine, which takes a second

    found: list[tuple[str, dict[str, Any]]] = []
    problems: list[str] = []
    before = Path.cwd()
    os.chdir(root)
    try:
        for file in sorted((root / "flows").glob("*.py")):
            try:
                found.extend(declared(file, root=root, environment=environment))
            except ConfigError as error:
                problems.extend(error.problems)
    finally:
        os.chdir(before)
    names = [f"{flow}/{body['name']}" for flow, body in found]
    problems.extend(f"two flow files declare {name}" for name in sorted(set(names)) if names.count(name) > 1)
    if problems:
        raise ConfigError(*problems)
    return found
