"""Replay of events and dead letters, and discarding letters: for tokens with the scope ``admin``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Body
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from events.errors import NotFound, Refused
from services.api.listings import EventId, LetterId, Source
from services.api.scopes import BEARER, Admin
from services.routing.dead_letter_replay import DeadReplay
from services.routing.replay import Replay, new_salt
from services.routing.retries import Retry
from services.store.dead_letters import DeadLetters


class EventReplay(BaseModel):
    """How an event is replayed."""

    model_config = ConfigDict(extra="forbid")

    rerun: bool = False
    """Do everything again; without it failures are retried, and gaps are filled."""
    rules: list[Annotated[str, Field(max_length=200)]] = []
    """Only by these rules."""


class LetterReplay(BaseModel):
    """How a dead letter is replayed."""

    model_config = ConfigDict(extra="forbid")

    set: dict[Annotated[str, Field(min_length=1, max_length=500)], JsonValue] = {}
    """Change it first: values by dotted path, such as ``data.amount``."""
    type: Annotated[str | None, Field(max_length=256)] = None
    """The type of a message that is plain JSON."""


@dataclass(frozen=True, kw_only=True)
class Replays:
    """The routes."""

    replay: Replay
    dead_replay: DeadReplay
    letters: DeadLetters

    def router(self) -> APIRouter:
        """The routes, for the application."""
        router = APIRouter(dependencies=[BEARER])
        router.post("/events/{id:path}/replay", tags=["events"], summary="Have a past event judged again")(self.event)
        router.post("/dead-letters/{id}/replay", tags=["dead letters"], summary="Send a letter on its way again")(
            self.letter
        )
        router.delete("/dead-letters/{id}", tags=["dead letters"], summary="Throw a letter away for good")(self.discard)
        return router

    async def event(
        self,
        caller: Admin,
        id: EventId,  # noqa: A002 - the name of the parameter
        how: Annotated[EventReplay | None, Body()] = None,
        source: Source = None,
    ) -> dict[str, Any]:
        how = how or EventReplay()
        chosen = await self.replay.select([id], None, source=source)
        salt = new_salt() if how.rerun else None
        retries: list[Retry] = []
        positions = [position for _, position in chosen]
        if salt is None:
            retries, positions = await self.replay.failures(chosen, named=True, only=how.rules)
        done = await self.replay.replay(
            positions, retries=retries, only=how.rules, salt=salt, by=f"token {caller.name}"
        )
        for refused in done.refused:
            raise Refused("not-replayed", refused.reason)
        return {"events": done.events + len(done.retried), "rerun": salt, "runs_started_again": done.runs}

    async def letter(
        self,
        caller: Admin,
        id: LetterId,  # noqa: A002
        how: Annotated[LetterReplay | None, Body()] = None,
    ) -> dict[str, Any]:
        how = how or LetterReplay()
        letter = await self.letters.get(await self.letters.choose(id))
        if letter is None:
            raise NotFound(f"there is no dead letter {id!r}")
        await self.dead_replay.replay(letter, how.set, default_type=how.type, by=f"token {caller.name}")
        return {"replayed": letter.id}

    async def discard(self, caller: Admin, id: LetterId) -> dict[str, Any]:  # noqa: A002
        del caller
        found = await self.letters.choose(id)
        if not await self.letters.discard([found]):
            raise NotFound(f"there is no dead letter {id!r}")
        return {"discarded": found}
