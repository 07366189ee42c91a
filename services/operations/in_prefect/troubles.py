"""The problems of the installation, with the Prefect events for their begin and end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.common.reasons import REASONS, Level
from services.operations.readiness import Readiness

_WATCH: Final = "files:"
"""Prefix of the name of a watch's part."""

_WATCHES: Final = {
    "watch-gone": "sluice.watch.gone",
    "watch-not-writable": "sluice.watch.not-writable",
    "watch-not-heard": "sluice.watch.deaf",
    "directories-unreadable": "sluice.watch.unreadable",
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """One problem: its subject, and the names of the events for its begin and end."""

    began: str
    ended: str
    subject: str
    """The id of its resource, such as ``sluice.watch.inbox``."""
    code: str
    message: str
    remedy: str

    @property
    def key(self) -> str:
        """Identifies the problem."""
        return f"{self.began} {self.subject}"

    @property
    def needs_time(self) -> bool:
        """Whether it is published only when it lasts: a role that is starting is not down."""
        return self.subject.startswith(("sluice.role.", "sluice.installation"))

    def payload(self, *, lasted_seconds: float | None = None) -> dict[str, Any]:
        """Return the payload of its events; ``lasted_seconds`` at its end."""
        said: dict[str, Any] = {"code": self.code, "message": self.message}
        return said | ({"remedy": self.remedy} if lasted_seconds is None else {"lasted_seconds": round(lasted_seconds)})


def troubles_of(readiness: Readiness) -> dict[str, Trouble]:
    """Return the present problems by key."""
    return {one.key: one for one in _troubles(readiness)}


def _troubles(readiness: Readiness) -> Iterator[Trouble]:
    """Yield what is wrong now: with the installation, roles, watches, held rules and the canary."""
    if readiness.level is Level.NOT_READY:
        said = "; ".join(readiness.problems)
        first = next(one for one in readiness.reasons if one.level is Level.NOT_READY)
        yield Trouble(
            "sluice.installation.not-ready",
            "sluice.installation.ready",
            "sluice.installation",
            first.code,
            said,
            first.remedy,
        )
    for name, role in readiness.roles.items():
        if not role.ready:
            code = next((one.code for one in role.reasons if one.level is Level.NOT_READY), "role-not-ready")
            subject, why = f"sluice.role.{name}", role.why or ""
            yield Trouble("sluice.role.down", "sluice.role.back", subject, code, why, REASONS[code].remedy)
        for report in role.instances:
            for part, status in report["parts"].items():
                yield from _of_part(part, status)
    for one in readiness.reasons:
        if one.code.startswith("canary"):
            yield Trouble(
                "sluice.canary.failed", "sluice.canary.passed", "sluice.canary", one.code, one.message, one.remedy
            )


def _of_part(part: str, status: Mapping[str, Any]) -> Iterator[Trouble]:
    """Yield the troubles of one part: a watch with a problem, or rules whose runs are held."""
    reasons = status.get("reasons")
    if part.startswith(_WATCH) and isinstance(reasons, dict):
        subject = f"sluice.watch.{part.removeprefix(_WATCH)}"
        for code, began in _WATCHES.items():
            if code in reasons:
                yield Trouble(began, "sluice.watch.back", subject, code, str(reasons[code]), REASONS[code].remedy)
    held = status.get("held")
    for one in held if part == "dispatcher" and isinstance(held, list) else ():
        subject = f"sluice.rule.{one['rule']}"
        said = f"rule {one['rule']} holds {one['waiting']} runs: {one['reason']}"
        remedy = REASONS["rule-held"].remedy
        yield Trouble("sluice.rule.held", "sluice.rule.released", subject, "rule-held", said, remedy)
