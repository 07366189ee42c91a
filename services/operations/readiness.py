"""Whether the installation is ready: the result that status, exit codes, health checks and metrics share."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from config.settings import ROLES
from events.errors import Backpressure, TransientError
from events.redact import redacted
from services.common.prefect_probe import prefect_problem
from services.operations.health import read_reports
from services.store.connection import AsyncRedis, translated

Report = Mapping[str, Any]

CACHE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class RoleReadiness:
    """One role: ready when one of its instances is. ``why`` says why it is not."""

    ready: bool
    why: str | None
    degraded: tuple[str, ...]
    """What is wrong although it works; a sentence each."""
    instances: tuple[Report, ...]
    """The reports of instances that report."""
    silent: tuple[Report, ...]
    """The last reports of instances that went silent without being stopped, and were not replaced."""

    def as_json(self) -> dict[str, Any]:
        """For `sluice status`."""
        return {
            "ready": self.ready,
            "why": self.why,
            "degraded": list(self.degraded),
            "instances": [_without_silence(report) for report in self.instances],
            "silent": [
                {"instance": report["instance"], "seconds": round(report["silent_seconds"])} for report in self.silent
            ],
        }


@dataclass(frozen=True, slots=True)
class Readiness:
    """The whole installation: ready when there is no problem."""

    problems: tuple[str, ...]
    """Why the installation is not ready; a sentence each."""
    roles: Mapping[str, RoleReadiness] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether everything that is expected works."""
        return not self.problems

    @property
    def degraded(self) -> list[str]:
        """What is wrong although it works; a sentence each."""
        return [f"role {name}: {sentence}" for name, role in self.roles.items() for sentence in role.degraded]

    def ready_here(self, role: str) -> bool:
        """Whether an instance of the role on this machine is ready: the health check of its container."""
        here = f"{socket.gethostname()}-"
        found = self.roles.get(role)
        return found is not None and any(
            report["ready"] for report in found.instances if report["instance"].startswith(here)
        )


def judge(reports: Sequence[Report], *, expected: Sequence[str], problems: Sequence[str] = ()) -> Readiness:
    """Return the readiness that follows from the roles' reports and the ``problems`` of the servers.

    A role counts if it is ``expected``, or if an instance of it has reported and was not stopped.
    """
    names: list[str] = [name for name in ROLES if name in expected or any(report["role"] == name for report in reports)]
    names += sorted({report["role"] for report in reports} - set(ROLES))
    roles = {name: _role([report for report in reports if report["role"] == name]) for name in names}
    missing = [f"role {name} is not ready: {role.why}" for name, role in roles.items() if not role.ready]
    return Readiness((*(redacted(problem) for problem in problems), *map(redacted, missing)), roles)


async def read_readiness(
    redis: AsyncRedis | None,
    *,
    prefect_url: str | None,
    prefect_auth: str | None = None,
    expected: Sequence[str],
) -> Readiness:
    """Read the reports and ask the servers; a server that is down is a problem, not an error.

    A server without an address is not asked; the caller adds the problem.
    """
    problems: list[str] = []
    reports: list[dict[str, Any]] | None = None
    if redis is not None:
        try:
            with translated():
                await redis.ping()
            reports = await read_reports(redis)
        except (TransientError, Backpressure) as error:
            problems.append(str(error))
    if prefect_url is not None:
        why = await asyncio.to_thread(prefect_problem, prefect_url, auth_string=prefect_auth)
        if why is not None:
            problems.append(f"the Prefect server at {prefect_url} {why}")
    if reports is None:
        unknown = RoleReadiness(False, "not known: only Redis could tell", (), (), ())
        return Readiness(tuple(map(redacted, problems)), dict.fromkeys(expected, unknown))
    return judge(reports, expected=expected, problems=problems)


class CachedReadiness:
    """The readiness of at most a second ago, read once for all callers."""

    def __init__(self, read: Callable[[], Awaitable[Readiness]]) -> None:
        self._read = read
        self._lock = asyncio.Lock()
        self._last: Readiness | None = None
        self._at = 0.0

    async def read(self) -> Readiness:
        """Return the readiness, at most a second old."""
        async with self._lock:
            if self._last is None or time.monotonic() - self._at > CACHE_SECONDS:
                self._last = await self._read()
                self._at = time.monotonic()
            return self._last


def _role(reports: Sequence[Report]) -> RoleReadiness:
    live = tuple(report for report in reports if report["silent_seconds"] is None)
    silent = tuple(report for report in reports if report["silent_seconds"] is not None and not _replaced(report, live))
    ready = any(report["ready"] for report in live)
    degraded = {sentence for report in live for sentence in report["degraded"]}
    if ready:
        degraded |= {_silence(report) for report in silent}
    why = None if ready else "; ".join([*map(_reason, live), *map(_silence, silent)]) or "no instance of it runs"
    return RoleReadiness(ready, why, tuple(sorted(degraded)), live, silent)


def _replaced(report: Report, live: Sequence[Report]) -> bool:
    """Whether an instance on the same machine was started after the last report: its supervisor replaced it."""
    host = report["instance"].rpartition("-")[0]
    return any(
        one["instance"].rpartition("-")[0] == host and datetime.fromisoformat(one["started"]).timestamp() > report["at"]
        for one in live
    )


def _reason(report: Report) -> str:
    waiting = [name for name, part in report["parts"].items() if not part.get("ready", True)]
    return f"{report['instance']} is not ready yet ({', '.join(waiting)})"


def _silence(report: Report) -> str:
    tens = int(report["silent_seconds"]) // 10 * 10
    return f"{report['instance']} has been silent for more than {tens} s"


def _without_silence(report: Report) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name != "silent_seconds"}
