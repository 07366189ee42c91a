"""The identity of an event: its source and its id, made into one text that names the event wherever state is kept."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Final

_DIGEST_BYTES: Final = 12
_TAIL: Final = re.compile(rf"@[0-9a-f]{{{2 * _DIGEST_BYTES}}}\Z")
_TAIL_INSIDE: Final = re.compile(rf"@[0-9a-f]{{{2 * _DIGEST_BYTES}}}(?=\Z|:[^:]*\Z)")


def identity_of(source: str, id_: str) -> str:
    """The identity of the event ``id_`` of ``source``: ``<id>@<digest of the source>``.

    The digest has a fixed length and stands last, so two different pairs never share an identity, whatever characters
    they hold (short of a collision of 96 bits). At most 25 characters longer than the id.
    """
    return id_ + tail_of(source)


def id_of(identity: str) -> str:
    """The id that people know the event by."""
    return _TAIL.sub("", identity)


def without_tail(key: str) -> str:
    """A key that begins with an identity, such as a signal's id, with the event's id alone at its beginning."""
    return _TAIL_INSIDE.sub("", key)


@lru_cache(maxsize=4096)
def tail_of(source: str) -> str:
    """What stands behind the id in the identity of each event of the source."""
    return "@" + hashlib.blake2b(source.encode(), digest_size=_DIGEST_BYTES).hexdigest()
