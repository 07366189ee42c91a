"""The effects of unfinished events, written by the scripts of `event_transitions`."""

from __future__ import annotations

import re
from typing import Final

from services.store.keys import Key, is_number, is_object, is_text

OPEN: Final = "sluice:open:"
"""Prefix of the hash with the effects of an unfinished event: each value is empty, or the effect's result."""

DAMAGED_MARK: Final = "!damaged"
"""Field that marks an event that is evaluated again because its state was damaged: it gets an entry when finished."""

_TOKEN: Final = re.compile(r"!|[A-Za-z0-9._-]+[#~!].*", re.DOTALL)


def _is_effect(name: bytes, value: bytes) -> None:
    """Raise `ValueError` for a field that Sluice did not write."""
    effect = is_text(name)
    if effect == "!matched":
        if is_number(value) < 0:
            raise ValueError("not a number of rules")
    elif effect in {"!quiet", DAMAGED_MARK}:
        if value != b"1":
            raise ValueError("not a mark")
    elif not _TOKEN.fullmatch(effect):
        raise ValueError("not the name of an effect")
    elif value[:1] in {b"+", b"-", b"!"}:
        is_object(value[1:])
    elif value not in {b"", b"."}:
        raise ValueError("not an effect")


KEYS: Final = (Key(OPEN + "*", "hash", "effect of an unfinished event", "until all of them are final", _is_effect),)
