"""What a waiting run and the resumer agree on: tag, pause key, and the run inputs that carry answers.

All of it lives in Prefect, so that a flow needs no other server and whoever looks at the run sees it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

AWAITS: Final = "awaits:"
"""Prefix of the tag that a run carries for each correlation key while it waits for it."""

WAIT: Final = "sluice-wait-"
"""Prefix of the pause key of every wait that `sluice.wait_for_signal` made; behind it the wait's name."""

KEYS: Final = "sluice_keys"
NEED: Final = "sluice_need"
DEADLINE: Final = "sluice_deadline"
REMINDER: Final = "sluice_reminder"
"""Fields beside Prefect's own in the paused state's keyset: JSON list of keys; ``any`` or ``all`` of them; ISO 8601
times of a suspended wait."""

DELIVERY: Final = "__sluice__"
"""Property of every answer that a signal brought: ``{"wait": pause key, "signal": id, "key": key or null}``."""

GAVE_UP: Final = "No signal came"
"""What the message of the state begins with in which a run goes on because nobody answered in time."""

EVENTS_NAME: Final = "sluice.events"
RESUME_NAME: Final = "sluice.resume"
"""The default names of channel and stream."""

FOLDERS_VARIABLE: Final = "SLUICE_FOLDERS"
"""Environment variable of a run: the folders that files may be read from, a JSON list. The executor sets it."""

FILE_VARIABLE: Final = "SLUICE_FILE"
"""Environment variable of a run that one file event led to: ``{"path", "version"}`` as JSON. The executor sets it."""

# Prefect allows letters, digits and dashes; two dashes end a name, so no name is the beginning of another's keys.
_PLAIN: Final = re.compile(r"[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*")
_LONGEST_PLAIN: Final = 80


def pause_key(name: str, occurrence: int) -> str:
    """The pause key of a run's wait ``name``; ``occurrence`` counts the waits under one name in one run, from 1."""
    plain = name
    if len(name) > _LONGEST_PLAIN or not _PLAIN.fullmatch(name):
        words = "-".join(re.findall("[A-Za-z0-9]+", name))[:60].strip("-")
        digest = hashlib.blake2b(name.encode(), digest_size=6).hexdigest()
        plain = f"{words}-{digest}" if words else digest
    return f"{WAIT}{occurrence}-{plain}"


def inputs_prefix(pause: str) -> str:
    """What the keys of a wait's run inputs begin with, and no other wait's do."""
    return f"{pause}--"


def schema_key(pause: str) -> str:
    """The run input that holds the JSON schema of the answer; Prefect validates answers by it."""
    return f"{pause}--schema"


def description_key(pause: str) -> str:
    """The run input that the UI shows above the form."""
    return f"{pause}--description"


def response_key(pause: str) -> str:
    """The run input that holds the answer; Prefect writes it with the transition out of the paused state."""
    return f"{pause}--response"


def verdict_key(pause: str) -> str:
    """The run input that holds why the wait ended otherwise: ``{"action": "reject" | "timeout", …}``."""
    return f"{pause}--verdict"


def form(schema: Mapping[str, Any], pause: str) -> dict[str, Any]:
    """The ``schema`` of an answer to one wait, which refuses an answer that was meant for another.

    Prefect validates and resumes in one transaction: what was decided on an old view of the run does no harm. Not under
    ``properties``, so that the form in the UI does not show it.
    """
    named = {"type": "object", "properties": {"wait": {"const": pause}}, "required": ["wait"]}
    return {**schema, "patternProperties": {**schema.get("patternProperties", {}), f"^{DELIVERY}$": named}}


def addressed(value: Mapping[str, Any], *, pause: str, signal: str, key: str | None) -> dict[str, Any]:
    """The answer ``value`` with the wait that it is meant for and the signal that brings it."""
    return {**value, DELIVERY: {"wait": pause, "signal": signal, "key": key}}


def opened(answer: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """The value of an answer, and what it says of its delivery (nothing, if it did not come by a signal)."""
    return {name: value for name, value in answer.items() if name != DELIVERY}, answer.get(DELIVERY) or {}


def keyset(
    pause: str, *, keys: Iterable[str], need_all: bool = False, deadline: str | None = None, reminder: str | None = None
) -> dict[str, str]:
    """The keyset of the paused state: where Prefect finds schema and answer, and what Sluice wants to know."""
    fields = {
        "schema": schema_key(pause),
        "response": response_key(pause),
        "description": description_key(pause),
        KEYS: json.dumps(list(keys)),
        NEED: "all" if need_all else "any",
    }
    if deadline is not None:
        fields[DEADLINE] = deadline
    if reminder is not None:
        fields[REMINDER] = reminder
    return fields


def keys_of(fields: Mapping[str, str] | None) -> tuple[str, ...]:
    """The correlation keys in a paused state's keyset."""
    if not fields or KEYS not in fields:
        return ()
    return tuple(str(key) for key in json.loads(fields[KEYS]))


def with_awaits(tags: Iterable[str], keys: Iterable[str]) -> list[str]:
    """``tags`` with exactly one ``awaits:`` tag for each of ``keys``."""
    return [*(tag for tag in tags if not tag.startswith(AWAITS)), *(AWAITS + key for key in keys)]
