"""The canary: a file and a message that Sluice sends through itself, with a source, a rule and a flow of its own.

None of them is in the project file. The canary's rule is evaluated only on the canary's events, and no other rule is.
"""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path
from typing import Final

from config.health import CANARY, CANARY_TYPE, CanarySettings
from config.sources import FilesSource, RedisSource
from events.rule import Rule, RuleSet
from events.rule_model import RuleSpec

STREAM: Final = "sluice.canary"
"""The Redis stream of its message."""

FLOW_FILE: Final = "flows/_canary.py"


def canary_watch(home: Path) -> dict[str, FilesSource]:
    """Return its watched folder by name: one for each home, which may be on a machine of its own."""
    mark = hashlib.blake2b(f"{socket.gethostname()} {home}".encode(), digest_size=4).hexdigest()
    source = FilesSource(
        path=home / "canary",
        include=(f"{CANARY}-*",),
        recursive=False,
        type=CANARY_TYPE,
        sha256="never",  # no content is remembered
        on_success="delete",
        on_failure="keep",
    )
    return {f"{CANARY}-{mark}": source}


def canary_stream() -> dict[str, RedisSource]:
    """Its stream by the name of the source."""
    return {CANARY: RedisSource(stream=STREAM, carries="signals", trim_after_seconds=3600.0)}


def canary_deployment(project: str | None) -> str:
    """Return the name of the flow's deployment, one for each project on a Prefect server."""
    return project or "default"


def canary_rules(settings: CanarySettings, *, project: str | None) -> RuleSet:
    """The one rule."""
    spec = RuleSpec(
        name=CANARY,
        on=CANARY_TYPE,
        run=f"{CANARY}/{canary_deployment(project)}",
        run_name="{{ event.subject }}",
        parameters={"key": "{{ event.subject }}", "timeout_seconds": settings.timeout_seconds},
    )
    return RuleSet([Rule(spec)])
