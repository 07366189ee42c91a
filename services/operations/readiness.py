"""Whether the installation is ready: the result that status, exit codes, health checks and metrics share."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from config.health import CanarySettings, HealthSettings
from config.settings import ROLES, Settings
from events.errors import Backpressure, TransientError
from events.redact import redacted
from services.common.prefect_probe import prefect_problem
from services.common.reasons import RETRYING, SAID_TO_ANYONE, Level, Reason, obstacles, reason
from services.operations.backlog import Backlog, age_text, read_backlog
from services.operations.health import read_reports
from services.store.canary.flights import CANARY_STEPS, CanaryFlight, CanaryRecords
from services.store.connection import AsyncRedis
from services.store.redis_errors import NotAllowed

Report = Mapping[str, Any]

CACHE_SECONDS: Final = 1.0
REDIS_SECONDS: Final = 5.0  # for all that it is asked: one that hangs is as bad as one that is away
RESTARTS_SECONDS: Final = 300.0
"""Period in which ends of a role's instances are counted."""
STEADY_SECONDS: Final = 30.0
"""An instance that has run this long is not restarting in a loop."""


@dataclass(frozen=True, slots=True)
class RoleReadiness:
    """One role: ready when one of its instances is. ``why`` says why it is not."""

    ready: bool
    why: str | None
    reasons: tuple[Reason, ...]
    """The role's reasons, the worst first."""
    instances: tuple[Report, ...]
    """The reports of instances that report."""
    silent: tuple[Report, ...]
    """The last reports of instances that went silent without being stopped, and were not replaced."""
    restarts: int = 0
    """How many of its instances ended within `RESTARTS_SECONDS` without being stopped."""

    @property
    def degraded(self) -> list[str]:
        """What is wrong although it works; a sentence each."""
        return [one.message for one in self.reasons if one.level is Level.DEGRADED]

    def as_json(self) -> dict[str, Any]:
        """For `sluice status`."""
        return {
            "ready": self.ready,
            "why": self.why,
            "degraded": self.degraded,
            "restarts": self.restarts,
            "instances": [_without_silence(report) for report in self.instances],
            "silent": [
                {"instance": report["instance"], "seconds": round(report["silent_seconds"])} for report in self.silent
            ],
        }


@dataclass(frozen=True, slots=True)
class Readiness:
    """The whole installation: ready when no reason speaks against it."""

    reasons: tuple[Reason, ...] = ()
    """All reasons, the worst first."""
    roles: Mapping[str, RoleReadiness] = field(default_factory=dict)
    backlog: Backlog | None = None
    """The backlog; None while Redis cannot be read."""
    canary: CanaryFlight | None = None
    """The result of the canary's last flight, if there was one."""

    @property
    def level(self) -> Level:
        """In a word: ready, degraded (it works, and should be looked at) or not ready."""
        levels = {one.level for one in self.reasons}
        return next((level for level in (Level.NOT_READY, Level.DEGRADED) if level in levels), Level.READY)

    @property
    def ready(self) -> bool:
        """Whether everything that is expected works."""
        return self.level is not Level.NOT_READY

    @property
    def unstarted(self) -> tuple[str, ...]:
        """Servers and roles that have not started yet, without problems that they report."""
        return tuple(
            one.message for one in self.reasons if one.code in SAID_TO_ANYONE and one.code != "role-restarting"
        )

    @property
    def waiting_for(self) -> tuple[str, ...]:
        """`unstarted` in short: the names of roles, and sentences about servers."""
        short = {one.message: one.role or one.message for one in self.reasons}
        return tuple(dict.fromkeys(short[message] for message in self.unstarted))

    @property
    def problems(self) -> tuple[str, ...]:
        """Why the installation is not ready; a sentence each."""
        return tuple(one.message for one in self.reasons if one.level is Level.NOT_READY)

    @property
    def degraded(self) -> list[str]:
        """What is wrong although it works; a sentence each."""
        return [
            f"role {one.role}: {one.message}" if one.role else one.message
            for one in self.reasons
            if one.level is Level.DEGRADED
        ]

    def as_health(self, *, whole: bool) -> dict[str, Any]:
        """For ``/health/ready``; without ``whole``, what anyone may read: files, folders and rules are not named."""
        told = {
            "ready": self.ready,
            "level": self.level,
            "roles": {name: one.ready for name, one in self.roles.items()},
        }
        if whole:
            reasons = [asdict(one) for one in self.reasons]
            backlog = self.backlog_json()
            return told | {"problems": self.problems, "degraded": self.degraded, "reasons": reasons, "backlog": backlog}
        wrong = [one for one in self.reasons if one.level is Level.NOT_READY]
        return told | {"problems": [one.message if one.code in SAID_TO_ANYONE else one.code for one in wrong]}

    def backlog_json(self) -> dict[str, Any] | None:
        """The backlog by place, with the age of the oldest entry; None while Redis cannot be read."""
        if self.backlog is None:
            return None
        return {name: waiting.as_json() for name, waiting in self.backlog.places().items()}

    def ready_here(self, role: str) -> bool:
        """Whether an instance of the role on this machine is ready, and nothing prevents its work."""
        here = f"{socket.gethostname()}-"
        found = self.roles.get(role)
        return found is not None and any(
            report["ready"] and not obstacles(report["parts"])
            for report in found.instances
            if report["instance"].startswith(here)
        )


def judge(
    reports: Sequence[Report],
    *,
    expected: Sequence[str],
    servers: Sequence[Reason] = (),
    backlog: Backlog | None = None,
    limits: HealthSettings | None = None,
    canary: CanaryFlight | None = None,
    canary_settings: CanarySettings | None = None,
) -> Readiness:
    """Return the readiness that follows from the roles' reports, the servers' reasons, and the backlog.

    A role counts if it is ``expected``, or if an instance of it has reported and was not stopped.
    """
    limits = limits or HealthSettings()
    names: list[str] = [name for name in ROLES if name in expected or any(report["role"] == name for report in reports)]
    names += sorted({report["role"] for report in reports} - set(ROLES))
    roles = {name: _role(name, [report for report in reports if report["role"] == name], limits) for name in names}
    reasons = [*servers, *(one for role in roles.values() for one in role.reasons)]
    if backlog is not None:
        reasons += _of_backlog(backlog, limits, paced=_paced(reports))
    if canary is not None and canary_settings is not None:
        reasons += _of_canary(canary, canary_settings)
    once: dict[tuple[str, str], Reason] = {}  # several roles read the project file
    for one in reasons:
        once.setdefault((one.code, one.message), replace(one, message=redacted(one.message)))
    return Readiness(tuple(sorted(once.values(), key=_worst_first)), roles, backlog, canary)


async def read_readiness(
    redis: AsyncRedis | None, settings: Settings, *, prefect_url: str | None = None, prefect_auth: str | None = None
) -> Readiness:
    """Read the reports and ask the servers; a server that is down is a reason, not an error.

    A server without an address is not asked; the caller adds the reason.
    """
    canary = settings.canary_in_force
    servers: list[Reason] = []
    reports: list[dict[str, Any]] | None = None
    backlog: Backlog | None = None
    flight: CanaryFlight | None = None
    asking = None
    if prefect_url is not None:
        asking = asyncio.create_task(asyncio.to_thread(prefect_problem, prefect_url, auth_string=prefect_auth))
    if redis is not None:
        try:
            async with asyncio.timeout(REDIS_SECONDS):
                await redis.ping()
                reports = await read_reports(redis)
                backlog = await read_backlog(redis)
                flight = await CanaryRecords(redis).last() if canary is not None else None
        except (TransientError, Backpressure, TimeoutError) as error:
            code = "redis-refuses" if isinstance(error, NotAllowed) else "redis-unreachable"
            servers.append(reason(code, redacted(str(error)) or f"Redis has not answered within {REDIS_SECONDS:g} s"))
    if asking is not None:
        why = await asking
        if why is not None:
            servers.append(reason("prefect-unreachable", redacted(f"the Prefect server at {prefect_url} {why}")))
    if reports is None:
        unknown = RoleReadiness(False, "not known: only Redis could tell", (), (), ())
        return Readiness(tuple(servers), dict.fromkeys(settings.expected_roles, unknown))
    return judge(
        reports,
        expected=settings.expected_roles,
        servers=servers,
        backlog=backlog,
        limits=settings.health,
        canary=flight,
        canary_settings=canary,
    )


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


def _role(name: str, reports: Sequence[Report], limits: HealthSettings) -> RoleReadiness:
    live = tuple(report for report in reports if report["silent_seconds"] is None)
    ended = [report for report in reports if report["silent_seconds"] is not None]
    silent = tuple(report for report in ended if not _replaced(report, live))
    ready = any(report["ready"] for report in live)
    why = None if ready else "; ".join([*map(_unready, live), *map(_silence, silent)]) or "no instance of it runs"
    reasons = [] if why is None else [reason(_code(live, silent), f"role {name} is not ready: {why}", role=name)]
    if ready:
        reasons += [reason("instance-silent", _silence(report), role=name) for report in silent]
    restarts = sum(report["silent_seconds"] < RESTARTS_SECONDS for report in ended)
    if restarts >= limits.restarts and not any(_steady(report) for report in live):
        said = f"role {name} restarts in a loop: it has ended {restarts} times within {RESTARTS_SECONDS / 60:.0f} min"
        reasons.append(reason("role-restarting", said, role=name))
    reasons += _of_parts(name, live)
    return RoleReadiness(ready, why, tuple(dict.fromkeys(reasons)), live, silent, restarts)


def _code(live: Sequence[Report], silent: Sequence[Report]) -> str:
    if live:
        return "role-not-ready"
    return "role-silent" if silent else "role-missing"


def _replaced(report: Report, live: Sequence[Report]) -> bool:
    """Whether an instance on the same machine was started after the last report: its supervisor replaced it."""
    host = report["instance"].rpartition("-")[0]
    return any(
        one["instance"].rpartition("-")[0] == host and datetime.fromisoformat(one["started"]).timestamp() > report["at"]
        for one in live
    )


def _steady(report: Report) -> bool:
    return bool(report["at"] - datetime.fromisoformat(report["started"]).timestamp() > STEADY_SECONDS)


def _unready(report: Report) -> str:
    waiting = [name for name, part in report["parts"].items() if not part.get("ready", True)]
    return f"{report['instance']} is not ready yet ({', '.join(waiting)})"


def _silence(report: Report) -> str:
    tens = int(report["silent_seconds"]) // 10 * 10
    return f"{report['instance']} has been silent for more than {tens} s"


def _of_parts(role: str, live: Sequence[Report]) -> Iterator[Reason]:
    """Return the reasons of the instances' parts, each once."""
    for report in live:
        for name, part in report["parts"].items():
            # Only an instance that could do the same work makes a reason less severe: not one with another executor
            # name.
            peers = [
                other["parts"][name]
                for other in live
                if name in other["parts"] and other["parts"][name].get("name") == part.get("name")
            ]
            for code, sentence in _told(part).items():
                said = f"{name}: {sentence}" if code == RETRYING else sentence
                yield reason(code, said, role=role, everywhere=all(code in _told(peer) for peer in peers))


def _told(part: Mapping[str, Any]) -> Mapping[str, str]:
    if "reasons" in part:
        reasons: Mapping[str, str] = part["reasons"]
        return reasons
    return {RETRYING: str(part["degraded"])} if part.get("degraded") else {}


def _paced(reports: Sequence[Report]) -> frozenset[str]:
    """Return the rules that the dispatcher holds because of their own limits."""
    found = [part.get("paced", ()) for report in reports for part in report["parts"].values()]
    return frozenset(str(rule) for rules in found if isinstance(rules, list) for rule in rules)


def _of_backlog(backlog: Backlog, limits: HealthSettings, *, paced: frozenset[str]) -> Iterator[Reason]:
    for queue, waiting in backlog.dispatch.items():
        rule = queue.partition(":")[0]
        if _exceeds(waiting.oldest_seconds, limits.dispatch_seconds):
            code, by = ("rule-limited", " by its limits") if rule in paced else ("dispatch-waits", "")
            age = age_text(waiting.oldest_seconds)
            yield reason(code, f"rule {rule}: {waiting.count} runs are kept back{by}, the oldest for {age}")
    for code, what, waiting, limit in (
        ("journal-waits", "events wait in the journal", backlog.journal, limits.journal_seconds),
        ("runs-wait", "runs wait for a slot", backlog.runs, limits.runs_seconds),
        ("signals-wait", "signals wait for a resumer", backlog.resume, limits.resume_seconds),
    ):
        if _exceeds(waiting.oldest_seconds, limit):
            oldest, most = age_text(waiting.oldest_seconds), age_text(limit)
            yield reason(code, f"{waiting.count} {what}, the oldest for {oldest} (limit {most})")


def _of_canary(flight: CanaryFlight, settings: CanarySettings) -> Iterator[Reason]:
    age = time.time() - flight.at
    if age > 3 * settings.interval_seconds + settings.timeout_seconds:
        yield reason("canary-silent", f"the last canary came to its end {age_text(age)} ago")
    elif flight.failed is not None:
        said = CANARY_STEPS.get(flight.failed, "it is a step of another version of Sluice")
        yield reason("canary-failed", f"the canary of {age_text(age)} ago failed at the step {flight.failed}: {said}")


def _exceeds(age: float | None, limit: float) -> bool:
    return age is not None and age > limit


def _worst_first(one: Reason) -> bool:
    return one.level is not Level.NOT_READY


def _without_silence(report: Report) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name != "silent_seconds"}
