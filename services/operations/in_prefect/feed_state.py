"""What was published to Prefect's event feed, so that the next holder of the lease publishes each thing once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Self

from pydantic import BaseModel, FiniteFloat, model_validator

from services.operations.in_prefect.troubles import Trouble
from services.store.connection import AsyncRedis
from services.store.keys import Key
from services.store.unreadable import readable

STATE: Final = "sluice:prefect-feed"


class FeedState(BaseModel):
    """The published problems, and the last published dead letter."""

    troubles: dict[str, Trouble] = {}
    """The problems of the last turn, by key."""
    since: dict[str, FiniteFloat] = {}
    """Since when each of them is, in seconds since the epoch."""
    letters_ms: int = 0
    """Dead letters that failed last at this time or later are looked for; in milliseconds since the epoch."""
    published: dict[str, int] = {}
    """When each of these failed last, by id, as far as it was published."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.troubles.keys() <= self.since.keys():
            raise ValueError("a trouble has no beginning")
        return self

    def know(self, letters: Mapping[str, int], *, late_ms: int, most: int) -> None:
        """Note letters that were told of; of those that failed at most ``late_ms`` before the newest, ``most`` stay."""
        told = sorted({**self.published, **letters}.items(), key=lambda one: one[1], reverse=True)
        oldest_ms = max(self.letters_ms, told[0][1] - late_ms, told[most][1] if len(told) > most else 0)
        self.letters_ms = oldest_ms
        self.published = {id_: failed_ms for id_, failed_ms in told if failed_ms >= oldest_ms}


async def read_feed_state(redis: AsyncRedis) -> FeedState | None:
    """Return the state that was written last; None if there is none. Raises `TransientError` or `Backpressure`."""
    raw = await redis.get(STATE)
    return None if raw is None else next(iter(readable(STATE, FeedState.model_validate_json, [raw])), None)


async def write_feed_state(redis: AsyncRedis, state: FeedState) -> None:
    """Replace it. Raises as `read_feed_state`."""
    await redis.set(STATE, state.model_dump_json())


KEYS: Final = (
    Key(STATE, "string", "what Prefect's event feed was told of", "for good", FeedState.model_validate_json),
)
