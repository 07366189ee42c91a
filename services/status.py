"""The state of the whole installation, put together from what the roles report and what the servers answer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from config.settings import Settings
from events.errors import Backpressure, TransientError
from events.redact import redacted
from services.access import find_access
from services.health import read_reports
from services.home import ui_url
from services.prefect_probe import prefect_problem
from services.store.connection import connect, translated

ROLES: Final = ("listeners", "router", "resumer", "executor", "api")


async def read_status(settings: Settings) -> dict[str, Any]:
    """`sluice status --json`: never raises for what is down, but names it in ``problems``.

    Raises `ConfigError` for a home of another user.
    """
    access = find_access(settings)
    redis_url, prefect, running = access.redis_url, access.prefect_api_url, access.running
    problems: list[str] = []
    reports: list[dict[str, Any]] = []
    if redis_url is None or prefect is None:
        problems.append(f"nothing runs on {settings.home}: start `sluice up`")
    if redis_url is not None:
        client = connect(redis_url, settings.redis)
        try:
            with translated():
                await client.ping()
            reports = await read_reports(client)
        except (TransientError, Backpressure) as error:
            problems.append(str(error))
        finally:
            await client.aclose()
    if prefect is not None:
        why = await asyncio.to_thread(prefect_problem, prefect, auth_string=access.prefect_auth_string)
        if why is not None:
            named = " (PREFECT_API_URL names it)" if settings.prefect_api_url else ""
            problems.append(f"the Prefect server at {prefect}{named} {why}")
    roles = {name: _role([report for report in reports if report["role"] == name]) for name in ROLES}
    if redis_url is not None:
        problems += [f"role {name} is not ready" for name, role in roles.items() if not role["ready"]]
    return {
        "ready": not problems,
        "problems": [redacted(problem) for problem in problems],
        "at": datetime.now(UTC).isoformat(),
        "prefect_api": redacted(prefect) if prefect else None,
        "prefect_ui": ui_url(prefect) if prefect else None,
        "redis": redacted(redis_url) if redis_url else None,
        "api": running.api_url if running else None,
        "home": str(settings.home),
        "pid": running.pid if running else None,
        "roles": roles,
        "watches": {
            name.removeprefix("files:"): part["path"]
            for report in reports
            for name, part in report["parts"].items()
            if name.startswith("files:")
        },
    }


def ready_here(status: Mapping[str, Any], role: str) -> bool:
    """Whether some instance of the role on this machine is ready: the health check of its container."""
    here = f"{socket.gethostname()}-"
    return any(one["ready"] for one in status["roles"][role]["instances"] if one["instance"].startswith(here))


def _role(reports: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "ready": any(report["ready"] for report in reports),
        "degraded": sorted({sentence for report in reports for sentence in report["degraded"]}),
        "instances": [{name: value for name, value in report.items() if name != "metrics"} for report in reports],
    }
