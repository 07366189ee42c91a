"""The reasons why an installation is not ready or degraded: codes, levels and remedies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final


class Level(StrEnum):
    """The level of a reason. Only ``not-ready`` turns readiness off."""

    READY = "ready"
    DEGRADED = "degraded"
    NOT_READY = "not-ready"


@dataclass(frozen=True, slots=True)
class ReasonKind:
    """The level and remedy of a code."""

    level: Level
    remedy: str
    """What to do, a sentence without a full stop."""
    every: bool = False
    """Whether it counts as `level` only if every instance that could do the work reports it; otherwise the others do
    it.
    """


@dataclass(frozen=True, slots=True)
class Reason:
    """One present problem."""

    code: str
    level: Level
    message: str
    remedy: str
    role: str | None = None


RETRYING: Final = "retrying"

_NOT_READY: Final = {
    "nothing-runs": "start `sluice up`, or set SLUICE_HOME to the home of the right installation",
    "redis-unreachable": "start Redis or correct its address (SLUICE_REDIS_URL); accepted events are kept in it",
    "redis-refuses": (
        "correct user and password, or use a user that may read everything: the operator, or in containers the router"
    ),
    "prefect-unreachable": (
        "read the Prefect server's log and restart it if it hangs; events wait and continue by themselves"
    ),
    "role-missing": (
        "start the role: with `sluice up`, in containers the service of that name; its log says why it ended"
    ),
    "role-silent": (
        "the role's process hangs, is stopped or cut off from Redis: `sluice up` kills and restarts it by itself, "
        "elsewhere restart it"
    ),
    "role-not-ready": "wait if the role has just started; otherwise its log names what it waits for",
    "role-restarting": "read the role's log: the last lines before each start say why it ended",
    "watch-gone": "bring the folder back (mount it, create it), or correct its path in the project file",
    "watch-not-writable": (
        "give the user that runs Sluice the right to write there, make room, or set on_success and on_failure to keep"
    ),
    "disk-full": (
        "make room on that disk: then files are taken again by themselves; `sluice storage` shows what uses the space"
    ),
    "rules-refused": "correct the project file where the message says; `sluice check` finds the same",
    "rule-held": "correct what its runs fail on, or the rule; one run at a time is tried by itself",
    "slots-held": (
        "answer the waiting runs (`sluice runs list --state paused`), or raise executor.waiting or executor.slots"
    ),
    "runs-without-process": (
        "`sluice runs cancel RUN`, then start it again in the UI: no process of Sluice executes it, whatever its state"
    ),
    "journal-waits": "read the router's log, which says what it waits for; more routers share the work",
    "dispatch-waits": "check that Prefect creates runs, and read the router's log; the runs continue by themselves",
    "runs-wait": "check what the slots do (`sluice status`); raise executor.slots, or start another executor",
    "canary-failed": "check the part that does the named step; the next canary tries again by itself",
    "canary-silent": "check the listeners, which send the canary: none has ended for too long",
    "signals-wait": "read the resumer's log, which says what it waits for; more resumers share the work",
}
SAID_TO_ANYONE: Final = frozenset(code for code in _NOT_READY if code.startswith(("role-", "redis-", "prefect-")))
"""The reasons whose sentences name only parts of Sluice."""

_DEGRADED: Final = {
    "instance-silent": "another instance works; check the machine and process of the silent one",
    "watch-not-heard": "files are found by scans only: do what the message says, or set `polling: always`",
    "directories-unreadable": "give the user that runs Sluice the right to read them (r-x), or exclude them",
    "disk-low": (
        "make room before files are no longer taken; `sluice storage` shows what uses the space, and what limits it"
    ),
    "rule-parked": "correct the rule's template; the parked events are evaluated again when the file has changed",
    "rule-limited": "nothing, if the rule's limits are intended; otherwise raise its rate or max_active_runs",
    "rule-misfit": "correct the rule's parameters or its deployment; until then its events become dead letters",
    "restart-needed": "restart the roles (stop and start `sluice up`) to open the changed sources",
    "slots-full": (
        "nothing, if it passes; otherwise answer the waiting runs, or raise executor.waiting or executor.slots"
    ),
    "flow-broken": "correct the flow's file; its next change is noticed and tried",
    "not-archived": "do what the message says: until then files stay in the watched folder, and do not run again",
    RETRYING: "nothing, if it has just begun: it is tried again until it works; the message says what prevents it",
}
_EVERY: Final = frozenset({"watch-gone", "watch-not-writable", "disk-full", "slots-held"})

REASONS: Final[Mapping[str, ReasonKind]] = {
    **{code: ReasonKind(Level.NOT_READY, said, every=code in _EVERY) for code, said in _NOT_READY.items()},
    **{code: ReasonKind(Level.DEGRADED, said) for code, said in _DEGRADED.items()},
}
"""Every code. docs/operations.md lists all of them, which a test checks."""


def reason(code: str, message: str, *, role: str | None = None, everywhere: bool = True) -> Reason:
    """Return the reason with its code's level and remedy; ``everywhere``: whether every instance reports it.

    A code that is not known comes from another version of Sluice, and counts as a degradation.
    """
    kind = REASONS.get(code, REASONS[RETRYING])
    return Reason(code, kind.level if everywhere or not kind.every else Level.DEGRADED, message, kind.remedy, role)


def told(reasons: Mapping[str, str | None]) -> dict[str, Any]:
    """Return the status of a part from its ``reasons``: each code with a sentence, or None if there is no problem."""
    found: dict[str, str] = {}
    for code, sentence in reasons.items():
        if sentence and sentence not in found.values():
            found[code] = sentence
    return {"degraded": "; ".join(found.values()), "reasons": found} if found else {}


def obstacles(parts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what prevents one instance's work, by the statuses of its parts, whether others do the work or not."""
    found = []
    for name, part in parts.items():
        severe = [
            sentence
            for code, sentence in part.get("reasons", {}).items()
            if code in REASONS and REASONS[code].level is Level.NOT_READY
        ]
        if severe or not part.get("ready", True):
            found.append(f"{name}: {'; '.join(severe) or 'not ready yet'}")
    return found
