"""Handles runs that Prefect refuses: one of several events is divided, one of a single event becomes a dead letter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import structlog

from events.dead_letter import DeadLetter
from events.rule import RuleSet
from events.window import halves_of
from services.dispatch.batch_planner import Item
from services.prefect_api.client import PrefectApi
from services.prefect_api.dispatch import Result, run_of
from services.store.dead_letters import DeadLetters, event_letter, lost_event_letter
from services.store.event_transitions import EventTransitions, Made
from services.store.events.event_history import compact_json
from services.store.events.journal import Journal
from services.store.runs.dispatch_queues import Dispatch, dispatch_of

_REASON_LIMIT: Final = 1000
_DIVIDED_REASON_LIMIT: Final = 200

log = structlog.get_logger()


class Refusals:
    """Settles refused runs. Raises `TransientError` or `Backpressure`; then the same call may be made again.

    Where the rule allows it (see `events.window.halves_of`), a refused run of several events is divided into two, each
    for half of the events, until the event at fault is alone.
    """

    def __init__(
        self,
        *,
        prefect: PrefectApi,
        transitions: EventTransitions,
        journal: Journal,
        dead_letters: DeadLetters,
        rules: Callable[[], RuleSet],
    ) -> None:
        self._prefect = prefect
        self._transitions = transitions
        self._journal = journal
        self._dead_letters = dead_letters
        self._rules = rules

    async def settle(self, item: Item, result: Result) -> bool:
        """Divide a refused run of several events; else keep a dead letter for every event, and return true."""
        dispatch = item.dispatch
        if len(dispatch.positions) > 1 and result.answered and await self._divide(item, result):
            return False
        letters = await self.letters(dispatch, result.code, result.said[:_REASON_LIMIT], attempts=item.attempts + 1)
        for letter in letters:
            await self._dead_letters.bury(letter)
        await self._transitions.refused(item.entry, dispatch, letters)
        return True

    async def _divide(self, item: Item, result: Result) -> bool:
        """Replace the run by two runs for half of its events each; false where it cannot be divided.

        A run that an earlier call created, and of which only the response was lost, is never divided: its events would
        run twice.
        """
        dispatch = item.dispatch
        held = await self._journal.fetch(dispatch.positions)
        entries = [held[position] for position in dispatch.positions if position in held]
        if len(entries) < len(dispatch.positions):
            return False
        actions = halves_of(
            self._rules().get(dispatch.action.rule), dispatch.action, [entry.event for entry in entries]
        )
        if not actions:
            return False
        run_id = await run_of(self._prefect, dispatch.action)
        if run_id is not None:
            await self._transitions.created([Made(item.entry, dispatch, run_id)])
            return True
        parts, begin = [], 0
        for action in actions:
            part = entries[begin : begin + len(action.identities)]
            begin += len(action.identities)
            parts.append(replace(dispatch_of(action, [(one.event, one.position) for one in part]), part=True))
        await self._transitions.divided(item.entry, dispatch, parts, result.said[:_DIVIDED_REASON_LIMIT])
        log.warning(
            "a run was refused and is divided to find the event at fault",
            rule=dispatch.action.rule,
            events=len(entries),
            code=result.code,
            reason=result.said[:_DIVIDED_REASON_LIMIT],
        )
        return True

    async def letters(self, dispatch: Dispatch, code: str, reason: str, *, attempts: int) -> list[DeadLetter]:
        """A letter for each event of the dispatch, in order, with as much of the event as the journal still holds."""
        action = dispatch.action
        held = await self._journal.fetch(dispatch.positions)
        letters = []
        for identity, position in zip(action.identities, dispatch.positions, strict=True):
            entry = held.get(position)
            said = {"rule": action.rule, "code": code, "reason": reason}
            if entry is not None:
                letters.append(event_letter(entry.event, **said, attempts=attempts))
                continue
            raw = compact_json(action.model_dump(mode="json"))
            letters.append(lost_event_letter(identity, raw, source=dispatch.source, **said, attempts=attempts))
        return letters
