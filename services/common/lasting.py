"""Conditions that have lasted for some time."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Lasting(Generic[K]):
    """Finds the conditions that have lasted for a number of seconds, by checks at intervals."""

    def __init__(self, *, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[K, float] = {}

    def look(self, things: Iterable[K]) -> list[K]:
        """Return those of the ``things`` that were named in every check of the last ``seconds``."""
        now = time.monotonic()
        self._since = {thing: self._since.get(thing, now) for thing in things}
        return [thing for thing, since in self._since.items() if now - since >= self._seconds]
