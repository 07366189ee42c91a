"""What Prefect's event feed has been told of, so that whoever goes on tells each thing once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from services.store.connection import AsyncRedis, translated
from services.store.keys import Key
from services.store.unreadable import readable

STATE: Final = "sluice:prefect-feed"


@dataclass(slots=True)
class FeedState:
    """What was told, and up to where."""

    troubles: dict[str, dict[str, str]] = field(default_factory=dict)
    """What was wrong when that was last told, by what tells it from others."""
    since: dict[str, float] = field(default_factory=dict)
    """Since when each of them is, in seconds since the epoch."""
    letters_ms: int = 0
    """The last failure of the newest dead letter that was told of, in milliseconds since the epoch."""
    letters: tuple[str, ...] = ()
    """The ids of those that failed at that time."""

    def as_json(self) -> str:
        """For `parse`."""
        fields = {name: getattr(self, name) for name in ("troubles", "since", "letters_ms", "letters")}
        return json.dumps(fields)

    @classmethod
    def parse(cls, raw: bytes | str) -> FeedState:
        """Raises `ValueError`, `TypeError` or `KeyError` for anything else."""
        found: Mapping[str, Any] = json.loads(raw)
        troubles = {str(name): {str(key): str(text) for key, text in one.items()} for name, one in _items(found)}
        since = {name: float(found["since"][name]) for name in troubles}
        return cls(troubles, since, int(found["letters_ms"]), tuple(str(one) for one in found["letters"]))


def _items(found: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return list(dict(found["troubles"]).items())


async def read_feed_state(redis: AsyncRedis) -> FeedState | None:
    """The state that was written last; None if there is none. Raises `TransientError` or `Backpressure`."""
    with translated():
        raw = await redis.get(STATE)
    return None if raw is None else next(iter(readable(STATE, FeedState.parse, [raw])), None)


async def write_feed_state(redis: AsyncRedis, state: FeedState) -> None:
    """Replace it. Raises as `read_feed_state`."""
    with translated():
        await redis.set(STATE, state.as_json())


KEYS: Final = (Key(STATE, "string", "what Prefect's event feed was told of", "for good", FeedState.parse),)
