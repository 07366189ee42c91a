"""Checks the user's own servers: whether they answer, and whether that Redis keeps its data."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from config.settings import Settings
from events.errors import Backpressure, ConfigError, TransientError
from events.redact import redacted
from services.common.prefect_probe import prefect_problem, prefect_version
from services.common.prefect_versions import untested_versions
from services.store.connection import connect
from services.store.redis_errors import translated

PATIENCE_SECONDS: Final = 5.0
_PAUSE_SECONDS: Final = 0.3


def check_own_servers(settings: Settings, *, say: Callable[[str], None]) -> None:
    """Raise `ConfigError` when a server that the environment names does not answer within `PATIENCE_SECONDS`.

    The message names the variable, which may be left over from another start. A Prefect of an untested version is
    reported, and used.
    """
    problems = []
    if settings.redis_url is not None:
        where = redacted(settings.redis_url)
        why = _patiently(lambda: _redis_problem(settings, settings.redis_url or ""), f"Redis at {where}", say)
        if why:
            problems.append(_sentence("SLUICE_REDIS_URL", where, "Valkey", why))
    if settings.prefect_api_url is not None:
        url = str(settings.prefect_api_url).rstrip("/")
        why = _patiently(lambda: prefect_problem(url), f"the Prefect server at {redacted(url)}", say)
        if why:
            problems.append(_sentence("PREFECT_API_URL", redacted(url), "Prefect server", why))
        else:
            for sentence in untested_versions(prefect_version(url), url=redacted(url)):
                say(f"Warning: {sentence}")
    if problems:
        raise ConfigError(*problems)
    if settings.redis_url is not None:
        for remark in redis_remarks(settings, settings.redis_url):
            say(f"  warning: {remark}")


def redis_remarks(settings: Settings, url: str) -> list[str]:
    """Return why this Redis does not answer, or may lose its data; a sentence each."""

    async def ask() -> dict[str, Any]:
        client = connect(url, settings.redis)
        try:
            with translated():
                found: dict[str, Any] = await client.info()
                return found
        finally:
            await client.aclose()

    where = f"Redis at {redacted(url)}"
    try:
        found = asyncio.run(ask())
    except (TransientError, Backpressure) as error:
        return [f"{where} could not be asked whether it keeps what it holds ({redacted(str(error))})"]
    remarks = []
    if not found.get("aof_enabled"):
        remarks.append(
            f"{where} has no append-only file, so events and signals are lost when it ends: "
            "start it with --appendonly yes"
        )
    if found.get("maxmemory_policy", "noeviction") != "noeviction":
        remarks.append(
            f"{where} evicts keys when its memory is full ({found['maxmemory_policy']}), events and signals among "
            "them: start it with --maxmemory-policy noeviction"
        )
    return remarks


def _sentence(variable: str, where: str, server: str, why: str) -> str:
    return (
        f"{variable} is set, to {where}, so no {server} is started here; but it {redacted(why)}. Unset {variable} "
        f"(it may be left over from an earlier start) to have one started, or see to it that this one answers"
    )


def _patiently(problem: Callable[[], str | None], server: str, say: Callable[[str], None]) -> str | None:
    """Return what is wrong with a server, None once nothing is; a server that is just starting gets some time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    said = False
    while (why := problem()) is not None and time.monotonic() < deadline:
        if not said:
            say(f"Waiting for {server} ...")
            said = True
        time.sleep(_PAUSE_SECONDS)
    return why


def _redis_problem(settings: Settings, url: str) -> str | None:
    async def ask() -> None:
        client = connect(url, settings.redis)
        try:
            with translated():
                await client.ping()
        finally:
            await client.aclose()

    try:
        asyncio.run(ask())
    except (TransientError, Backpressure) as error:
        return f"does not answer as it should ({error})"
    return None
