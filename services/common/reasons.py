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
    "nothing-runs": "start `sluice up`, or set SLUICE_HOME to the home of the installation that is meant",
    "redis-unreachable": "start Redis or mend its address (SLUICE_REDIS_URL); what was accepted is kept there",
    "redis-refuses": (
        "mend user and password, or ask as one that may look at everything: the operator, or in containers the router"
    ),
    "prefect-unreachable": (
        "look at the Prefect server's log and start it again if it hangs; events wait and go on by themselves"
    ),
    "role-missing": "start it: `sluice up` does, in containers the service of that name; its log says why it ended",
    "role-silent": (
        "its process hangs, is stopped or cut off from Redis: `sluice up` kills and restarts it by itself, elsewhere "
        "restart it"
    ),
    "role-not-ready": "wait if it has just started; otherwise its log names what it waits for",
    "role-restarting": "read the role's log: its last lines before each start say what it dies of",
    "watch-gone": "bring the folder back (mount it, create it), or mend its path in the project file",
    "watch-not-writable": (
        "give the user that runs Sluice the right to write there, make room, or set on_success and on_failure to keep"
    ),
    "disk-full": "make room on that disk: files are taken again by themselves; `sluice storage` tells what takes it",
    "rules-refused": "mend the project file where the sentence says; `sluice check` finds the same",
    "rule-held": "mend what its runs fail on, or the rule; it tries again by itself",
    "slots-held": "answer what waits (`sluice runs list --state paused`), or raise executor.waiting or executor.slots",
    "runs-without-process": (
        "`sluice runs cancel RUN`, then start it again in the UI: no process of Sluice executes it, whatever its state"
    ),
    "journal-waits": "look at the router: its log says what it waits for; more instances of it share the work",
    "dispatch-waits": "look whether Prefect takes runs, and at the router's log; they go on by themselves",
    "runs-wait": "look at what the slots do (`sluice status`): raise executor.slots, or start another executor",
    "canary-failed": "look at the part that does the step which is named; the next canary tries again by itself",
    "canary-silent": "look at the listeners, which send the canary: nothing has been heard of one for too long",
    "signals-wait": "look at the resumer: its log says what it waits for; more instances of it share the work",
}
SAID_TO_ANYONE: Final = frozenset(code for code in _NOT_READY if code.startswith(("role-", "redis-", "prefect-")))
"""The reasons whose sentences name only parts of Sluice."""

_DEGRADED: Final = {
    "instance-silent": "another instance works; look whether the silent one's machine or process is well",
    "watch-not-heard": "files are found by scans only: do what the sentence says, or set `polling: always`",
    "directories-unreadable": "give the user that runs Sluice the right to read them (r-x), or exclude them",
    "disk-low": "make room before no file is taken any more; `sluice storage` tells what takes it, and what limits it",
    "rule-parked": "mend the rule's template; the parked events are evaluated again when the file has changed",
    "rule-limited": "nothing, if the rule's limits are meant so; otherwise raise its rate or max_active_runs",
    "rule-misfit": "mend the rule's parameters or its deployment; until then its events become dead letters",
    "restart-needed": "restart the roles (stop and start `sluice up`) to open the changed sources",
    "slots-full": "nothing, if it passes; otherwise answer what waits, or raise executor.waiting or executor.slots",
    "flow-broken": "mend the flow's file; its next change is noticed and tried",
    "not-archived": "do what the sentence says: files stay in the watched folder until then, and do not run again",
    RETRYING: "nothing, if it has just begun: it is tried again until it works; the sentence says what is in the way",
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
