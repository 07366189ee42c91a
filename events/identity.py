"""The identity of an event: one text made of its source and its id, which names the event in all records."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Final

_DIGEST_BYTES: Final = 12
_TAIL: Final = re.compile(rf"@[0-9a-f]{{{2 * _DIGEST_BYTES}}}\Z")
_TAIL_INSIDE: Final = re.compile(rf"@[0-9a-f]{{{2 * _DIGEST_BYTES}}}(?=\Z|:[^:]*\Z)")


def identity_of(source: str, id_: str) -> str:
    """Return the identity of the event ``id_`` of ``source``: ``<id>@<digest of the source>``.

    The digest has a fixed length and comes last, so two different pairs never share an identity, whatever characters
    they have (except for a collision of 96 bits). At most 25 characters longer than the id.
    """
    return id_ + tail_of(source)


def id_of(identity: str) -> str:
    """Return the event's own id."""
    return _TAIL.sub("", identity)


def without_tail(key: str) -> str:
    """Return a key that begins with an identity, such as a signal's id, without the identity's digest."""
    return _TAIL_INSIDE.sub("", key)


@lru_cache(maxsize=4096)
def tail_of(source: str) -> str:
    """Return the part after the id in the identities of the source's events."""
    return "@" + hashlib.blake2b(source.encode(), digest_size=_DIGEST_BYTES).hexdigest()
