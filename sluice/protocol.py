"""The protocol between a waiting run and the resumer: tag, pause key, and the run inputs with the answers.

All of it is in Prefect, so that a flow needs no other server and everybody can see it on the run.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

AWAITS: Final = "awaits:"
"""Prefix of the tag that a run has for each correlation key while it waits for it."""

_TAG_KINDS: Final = ("rule", "event", "source", "", "sluice", "sluice-project")
"""Prefixes of a run's tags in the order of importance; the empty one stands for the others."""

WAIT: Final = "sluice-wait-"
"""Prefix of the pause key of every wait of `sluice.wait_for_signal`; the wait's number and name follow."""

KEYS: Final = "sluice_keys"
NEED: Final = "sluice_need"
IN_PROCESS: Final = "sluice_in_process"
SINCE: Final = "sluice_since"
DEADLINE: Final = "sluice_deadline"
REMINDER: Final = "sluice_reminder"
"""Fields beside Prefect's own in the paused state's keyset: JSON list of keys; ``any`` or ``all`` of them; ``yes`` if a
process entered it and stayed; ISO 8601 times at which it was first entered, ends unanswered and is reminded of."""

DELIVERY: Final = "__sluice__"
"""Property of every answer from a signal: ``{"wait": pause key, "signal": id, "key": key or null}``."""

GO_ON: Final = "go_on"
"""The one field of the form of a wait without fields: Prefect's Resume button sends it."""

_GO_ON: Final = {"type": "boolean", "title": "Go on", "description": "Sent by Resume", "default": True, "const": True}

GAVE_UP: Final = "No signal came"
"""Beginning of the state message with which a run continues after a time-out."""

EVENTS_NAME: Final = "sluice.events"
RESUME_NAME: Final = "sluice.resume"
"""The default names of channel and stream."""

FOLDERS_VARIABLE: Final = "SLUICE_FOLDERS"
"""Environment variable of a run: the folders that files may be read from, a JSON list. The executor sets it."""

CONTRACTS_VARIABLE: Final = "SLUICE_CONTRACTS"
"""Environment variable of a run: files and folders with the project's contracts, a JSON list. The executor sets it."""

REJECTED_FOLDER: Final = "rejected"
"""The folder inside a watched one that the bad rows of its files are written to; nothing in it is an arrival."""

FILE_VARIABLE: Final = "SLUICE_FILE"
"""Environment variable of a run that one file event led to: ``{"path", "version"}`` as JSON. The executor sets it."""

LONGEST_KEY: Final = 200
"""Characters of a correlation key."""

_UNPRINTABLE: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories of control characters, lone surrogates, and line and paragraph separators."""

_REMINDERS: Final = uuid.UUID("0f1c7a36-2f0e-4d57-9c39-6e2b1f8f3c11")

# Prefect takes lower-case letters, digits and dashes; two dashes end a name, so no name begins another's keys.
_PLAIN: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_LONGEST_PLAIN: Final = 80
_ENTRY: Final = re.compile(r"--e(\d+)(?:--|$)")


def checked_key(key: str, *, what: str = "key") -> str:
    """The correlation key as Sluice compares it: in Unicode's composed form (NFC), else exactly as given.

    Raises `ValueError` for an empty one, one of more than 200 characters, or one with a control character, and
    `TypeError` for what is not text.
    """
    if not isinstance(key, str):
        raise TypeError(f"the {what} must be text, not {type(key).__name__} ({key!r})")
    composed = unicodedata.normalize("NFC", key)
    if not composed:
        raise ValueError(f"the {what} is empty")
    if len(composed) > LONGEST_KEY:
        raise ValueError(
            f"the {what} {composed[:40]!r}… has {len(composed)} characters; at most {LONGEST_KEY} are allowed"
        )
    for character in composed:
        if unicodedata.category(character) in _UNPRINTABLE:
            raise ValueError(
                f"the {what} {composed!r} contains the control character U+{ord(character):04X}; send it without"
            )
    return composed


def wait_key(name: str, occurrence: int) -> str:
    """Return the id of a wait in its run; ``occurrence`` counts the waits under one name in one run, from 1."""
    plain = name
    if len(name) > _LONGEST_PLAIN or not _PLAIN.fullmatch(name):
        words = "-".join(re.findall("[A-Za-z0-9]+", name))[:60].strip("-").lower()
        digest = hashlib.blake2b(name.encode(), digest_size=6).hexdigest()
        plain = f"{words}-{digest}" if words else digest
    return f"{WAIT}{occurrence}-{plain}"


def pause_key(name: str, occurrence: int, entry: int = 1) -> str:
    """Return the pause key of a run's ``entry``-th entry to its wait; Prefect accepts each key only once."""
    wait = wait_key(name, occurrence)
    return wait if entry == 1 else f"{wait}--e{entry}"


def entry_of(key: str) -> int:
    """Return the entry of its wait to which a pause key, or the key of a run input, belongs."""
    found = _ENTRY.search(key)
    return int(found[1]) if found else 1


def belongs_to(key: str, wait: str) -> bool:
    """Whether a pause key, or the key of a run input, belongs to an entry of that wait."""
    return key == wait or key.startswith(inputs_prefix(wait))


def inputs_prefix(wait: str) -> str:
    """Return the common prefix of the run inputs of a wait, of all its entries and of no other wait."""
    return f"{wait}--"


def form_key(pause: str) -> str:
    """The run input that keeps the form, ``{"schema": …, "description": …}``, from before the pause.

    Prefect 3.9 deletes the run inputs of a pause's keyset when the pause begins. So the form is copied to them
    afterwards, by the process that waits, or by the resumer if that process has ended before.
    """
    return f"{pause}--form"


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
    """The run input that says why the wait ended without an answer: ``{"action": "reject" | "timeout", …}``.

    Prefect stores a run input only once: the first verdict counts, and an answer overrules it.
    """
    return f"{pause}--verdict"


def form(schema: Mapping[str, Any], pause: str) -> dict[str, Any]:
    """The ``schema`` of an answer to one wait, which refuses an empty answer and one that was meant for another wait.

    Prefect validates and resumes in one transaction, so a decision on an outdated view of the run does no harm. It
    stores an answer only if it is not empty, and a wait without an answer counts as open; so the form always has a
    field that Prefect sends. The part about the wait is not under ``properties``, which the form shows.
    """
    named = {"type": "object", "properties": {"wait": {"const": pause}}, "required": ["wait"]}
    required = schema.get("required", ())
    fields = {name: _chosen(one) if name in required else one for name, one in schema.get("properties", {}).items()}
    fields = fields or {GO_ON: _GO_ON}
    example = "{" + f'"{next(iter(fields))}": …' + "}"
    whole = {
        **schema,
        "properties": fields,
        "allOf": [*schema.get("allOf", []), {"properties": {DELIVERY: named}}],
    }
    if not schema.get("required"):  # Prefect reports the missing property's name to the sender of an empty answer
        whole |= {"if": {"maxProperties": 0}, "then": {"required": [f"an answer, such as {example}"]}}
    if whole.get("additionalProperties") is False:  # which would refuse the part about the wait
        del whole["additionalProperties"]
        whole["unevaluatedProperties"] = False
    return whole


def _chosen(field: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a boolean without a default as a choice of two: the UI would send an untouched switch as false."""
    if field.get("type") != "boolean":
        return field
    return {**{name: value for name, value in field.items() if name != "type"}, "enum": [True, False]}


def addressed(value: Mapping[str, Any], *, pause: str, signal: str, key: str | None) -> dict[str, Any]:
    """Return the answer ``value`` with the wait that it is for and the signal that brings it."""
    return {**value, DELIVERY: {"wait": pause, "signal": signal, "key": key}}


def opened(answer: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Return the value of an answer, and the part about its delivery (empty, if it did not come by a signal).

    The form of a wait without fields gives an empty value.
    """
    value = {name: field for name, field in answer.items() if name != DELIVERY}
    delivery = answer.get(DELIVERY) or {}
    return ({} if not delivery and value == {GO_ON: True} else value), delivery


def shown_form(pause: str, form: Mapping[str, Any]) -> dict[str, Any]:
    """Return the run inputs that show the form of `form_key`, in order: without the schema no answer is accepted."""
    return {schema_key(pause): form["schema"], description_key(pause): form["description"]}


def keyset(
    pause: str,
    *,
    keys: Iterable[str],
    need_all: bool = False,
    in_process: bool = False,
    since: datetime | None = None,
    deadline: datetime | None = None,
    reminder: datetime | None = None,
) -> dict[str, str]:
    """Return the keyset of the paused state: the run inputs for schema and answer, and Sluice's own fields."""
    fields = {
        "schema": schema_key(pause),
        "response": response_key(pause),
        "description": description_key(pause),
        KEYS: json.dumps(list(keys)),
        NEED: "all" if need_all else "any",
    }
    if in_process:
        fields[IN_PROCESS] = "yes"
    moments = {SINCE: since, DEADLINE: deadline, REMINDER: reminder}
    return fields | {name: moment.isoformat() for name, moment in moments.items() if moment is not None}


def keys_of(fields: Mapping[str, str] | None) -> tuple[str, ...]:
    """Return the correlation keys in a paused state's keyset."""
    if not fields or KEYS not in fields:
        return ()
    return tuple(unicodedata.normalize("NFC", str(key)) for key in json.loads(fields[KEYS]))


def reminder_id(run_id: str, pause: str) -> str:
    """Return the id of a wait's reminder event: the same, whoever sends it."""
    return str(uuid.uuid5(_REMINDERS, f"{run_id} {pause.partition('--e')[0]}"))


def is_awaiting(tags: Iterable[str]) -> bool:
    """Whether there is an ``awaits:`` tag."""
    return any(tag.startswith(AWAITS) for tag in tags)


def with_awaits(tags: Iterable[str], keys: Iterable[str]) -> list[str]:
    """Return ``tags`` with exactly one ``awaits:`` tag for each of ``keys``, in the order of importance.

    Prefect's UI shows a run's first tags, in the order in which they are stored.
    """
    others = (tag for tag in tags if not tag.startswith(AWAITS))
    return [*(AWAITS + key for key in keys), *sorted(others, key=_rank)]


def _rank(tag: str) -> int:
    kind = tag.partition(":")[0]
    return _TAG_KINDS.index(kind if kind in _TAG_KINDS else "")
