"""The status of the whole installation: the roles' reports and the state of the servers."""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from config.health import is_canary
from config.settings import Settings
from events.errors import Backpressure, TransientError
from events.redact import redacted
from services.common.reasons import reason
from services.home.access import find_access
from services.home.home import ui_url
from services.operations.readiness import Readiness, read_readiness
from services.store.connection import connect
from services.store.state.installation import project_name


async def read_status(settings: Settings) -> tuple[Readiness, dict[str, Any]]:
    """Return the readiness, and the object of `sluice status --json`; a server that is down is named, not raised.

    Raises `ConfigError` for a home of another user.
    """
    access = find_access(settings)
    redis_url, prefect, running = access.redis_url, access.prefect_api_url, access.running
    async with AsyncExitStack() as stack:
        redis = None
        if redis_url is not None:
            redis = connect(redis_url, settings.redis)
            stack.push_async_callback(redis.aclose)
        auth = access.prefect_auth_string
        found = await read_readiness(redis, settings, prefect_url=prefect, prefect_auth=auth)
        project = None
        if redis is not None and found.backlog is not None:  # Redis has answered
            with suppress(TransientError, Backpressure):
                project = await project_name(redis)
    if redis_url is None or prefect is None:
        nothing = reason("nothing-runs", f"nothing runs on {settings.home}: start `sluice up`")
        found = replace(found, reasons=(nothing, *found.reasons))
    return found, {
        "ready": found.ready,
        "level": found.level,
        "project": project,
        "problems": list(found.problems),
        "reasons": [asdict(one) for one in found.reasons],
        "backlog": found.backlog_json(),
        "canary": found.canary.shown() if found.canary else None,
        "at": datetime.now(UTC).isoformat(),
        "prefect_api": redacted(prefect) if prefect else None,
        "prefect_ui": ui_url(prefect) if prefect else None,
        "redis": redacted(redis_url) if redis_url else None,
        "api": running.api_url if running else None,
        "home": str(settings.home),
        "pid": running.pid if running else None,
        "roles": {name: role.as_json() for name, role in found.roles.items()},
        "watches": {
            name.removeprefix("files:"): part["path"]
            for role in found.roles.values()
            for report in role.instances
            for name, part in report["parts"].items()
            if name.startswith("files:") and not is_canary(name.removeprefix("files:"))
        },
    }
