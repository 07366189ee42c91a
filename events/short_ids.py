"""Ids cut to the beginning that tells them apart, as git does; every command takes such a beginning for the id."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Final

from events.errors import NotFound, Refused

LEAST: Final = 4
"""Characters that a beginning must have to be taken for an id."""

_NAMED: Final = 6
"""Ids that are named where several could be meant."""

_SHOWN: Final = 8
"""Characters that are shown at least."""

_DIGITS: Final = re.compile(r"[0-9a-f]{16,}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
"""An id that no person has chosen: a digest or a UUID. Others say something, and are shown whole."""


def shortened(ids: Sequence[str]) -> list[str]:
    """Each of the ids, cut to the shortest beginning that none of the others has."""
    ordered = sorted(set(ids))
    needed = dict.fromkeys(ordered, 0)
    for one, other in pairwise(ordered):
        common = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
        needed[one] = max(needed[one], common + 1)
        needed[other] = max(needed[other], common + 1)
    return [one[: max(needed[one], _SHOWN)].rstrip("-") if _DIGITS.fullmatch(one) else one for one in ids]


def the_one(found: Collection[str], given: str, *, what: str) -> str:
    """The only id that was ``found`` for what a person has given.

    Raises `NotFound` where there is none, and `Refused` (``ambiguous``) with the ids where there are several.
    """
    if not found:
        raise NotFound(f"there is no {what} {given!r}")
    if len(found) > 1:
        names = ", ".join(sorted(found)[:_NAMED]) + (", …" if len(found) > _NAMED else "")
        raise Refused("ambiguous", f"several {what}s begin with {given!r}: give more of the id, one of {names}")
    return next(iter(found))
