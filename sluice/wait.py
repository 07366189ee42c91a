"""One wait of a flow run: pause or suspend, hear the answer, and remember it for when the flow starts again.

Only an answer, a rejection or the wait's time-out ends it, and each of them leaves a run input (docs/waits.md). A run
that left its paused state in any other way is paused again, in another entry of the same wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound

from sluice.hearing import Hearing, hearing
from sluice.own_run import UNREACHABLE, OwnRun
from sluice.past import RESCHEDULED, answer_in, ended_by, ended_with, handed_over, this_attempt, verdicts_in
from sluice.protocol import (
    GAVE_UP,
    belongs_to,
    entry_of,
    form_key,
    is_awaiting,
    keys_of,
    keyset,
    pause_key,
    verdict_key,
    wait_key,
    with_awaits,
)
from sluice.wait_result import Expiry, Leave, OneWaitError, Refusal, Result, WaitEndedError, WaitSpec

_COMMIT_SECONDS: Final = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.4)
"""Prefect tells of a state before its transaction is committed: how long to wait before each look."""

_UNCONNECTED_POLL_SECONDS: Final = 2.0
_SETTLE_SECONDS: Final = 0.1
"""How long an answer that was being committed at the deadline may take to become visible."""

_AGAIN_SECONDS: Final = 1.0

_given_up: dict[UUID, str] = {}
"""The pause key of the wait that a run's flow gave up by an interruption: the run is still paused in it."""


@dataclass(slots=True)
class Wait:
    """The wait ``spec`` of the run, under ``occurrence`` (how many waits of that name the run has made, from 1).

    ``since`` is when the flow began to wait, if that was before: several answers share one timeout.
    ``complaint`` says what was wrong with the answer before.
    """

    run: OwnRun
    run_id: UUID
    spec: WaitSpec
    occurrence: int
    log: logging.Logger | logging.LoggerAdapter[Any]
    since: datetime | None = None
    complaint: str = ""
    key: str = field(init=False)
    _entry: int = field(init=False, default=0)
    _tags: list[str] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.key = wait_key(self.spec.name, self.occurrence)

    @property
    def _pause(self) -> str:
        return pause_key(self.spec.name, self.occurrence, self._entry)

    async def result(self) -> Result:
        """Wait; an answer that came in an earlier attempt of this run is given again at once.

        Raises Prefect's `Abort` if the run is ended meanwhile, `WaitEndedError` if it is deleted, and `OneWaitError` if
        it is in another wait.
        """
        while True:
            before, inputs = await asyncio.gather(self.run.read_patiently(), self.run.inputs(self.key))
            self._tags = list(before.tags)
            result = await self._known(before, inputs)
            if result is None:
                result = await self._elsewhere(before) or await self._enter_and_wait(before, inputs)
            if isinstance(result, Refusal | Expiry):
                await self.tidy()
            if result is not None:
                return result

    async def tidy(self) -> None:
        """Take the tags away that say what the run waits for; the answer need not wait for that."""
        if is_awaiting(self._tags):
            self._tags = list((await self.run.read()).tags)
        if is_awaiting(self._tags):
            self._tags = with_awaits(self._tags, ())
            await self.run.set_tags(self._tags)

    async def began(self) -> datetime | None:
        """When this attempt of the run first entered the wait; None if it did not."""
        return min((state.timestamp for state in await self._stays()), default=None)

    async def _stays(self) -> list[State[Any]]:
        """The states in which this attempt of the run was in the wait, oldest first."""
        states = this_attempt(await self.run.states())
        return [
            state
            for state in states
            if state.type == StateType.PAUSED and belongs_to(state.state_details.pause_key or "", self.key)
        ]

    async def _known(self, run: FlowRun, inputs: Mapping[str, Any]) -> Result | None:
        """What an entry of the wait ended with, if one did: answers outlive the end of a run, verdicts do not."""
        answer = answer_in(inputs)
        if answer is not None:
            return answer
        verdicts = verdicts_in(inputs)
        if not verdicts:
            answer = await self.run.inherited(run, self.key)
            if answer is not None:
                self.log.info("The wait was answered in an earlier run of this subflow")
            return answer
        pause, verdict = verdicts[-1]
        if any(stay.state_details.pause_key == pause for stay in await self._stays()):
            return ended_by(verdict)
        for pause, _ in verdicts:
            await self.run.drop(verdict_key(pause))
        return None

    async def _elsewhere(self, run: FlowRun) -> Leave | None:
        """Expect the run to be one that this process executes, and not to be in a wait."""
        state = run.state
        if state is None:
            return None
        if state.type in RESCHEDULED or (state.type == StateType.PAUSED and state.state_details.pause_reschedule):
            return Leave(state)
        if state.type == StateType.PAUSED:
            if state.state_details.pause_key != _given_up.pop(self.run_id, ""):
                raise OneWaitError
            await self.run.go_on("The flow gave up its wait and goes on")
        return None

    async def _enter_and_wait(self, before: FlowRun, inputs: Mapping[str, Any]) -> Result | None:
        """Enter the wait once more and see what comes of it; None if it was left without an answer."""
        fired = {key for key in before.empirical_policy.pause_keys or () if belongs_to(key, self.key)}
        last = max((entry_of(key) for key in {*inputs, *fired}), default=0)
        if last and self.since is None:
            self.since = await self.began()
        deadline = self.spec.deadline(self.since or datetime.now(UTC))
        if last and deadline is not None and deadline <= datetime.now(UTC):
            self._entry = last
            return await self._expire()
        self._entry = last + 1
        obsolete = [key for key in inputs if key.endswith(("--form", "--schema", "--description"))]
        if self.spec.suspend:
            if not isinstance(entered := await self._enter(obsolete), tuple):
                return entered
            state, form = entered
            await self.run.show_form(self._pause, form)
            return Leave(state)
        async with hearing(self.run_id) as heard:
            began = datetime.now(UTC)
            if not isinstance(entered := await self._enter(obsolete), tuple):
                return entered
            state, form = entered
            heard.watch(state.timestamp)
            showing = asyncio.create_task(self.run.show_form(self._pause, form))
            try:
                return await self._until_left(state, heard, self.since or began)
            except asyncio.CancelledError:
                _given_up[self.run_id] = self._pause
                raise
            finally:
                showing.cancel()

    async def _enter(self, obsolete: Sequence[str]) -> tuple[State[Any], dict[str, Any]] | Leave | None:
        """Pause the run; return its state and the form of the answer, which is still to be shown.

        `Leave` if the run was given to another process just now, as by an executor that takes this one for dead; None
        if it was paused and is not any more.
        """
        spec, pause = self.spec, self._pause
        now = self.since or datetime.now(UTC)
        deadline = spec.deadline(now)
        message = spec.message(deadline, self.complaint)
        self._tags = with_awaits(self._tags, spec.keys)
        form, _ = await asyncio.gather(
            self.run.keep_form(pause, spec.model, spec.shown(message)), self.run.set_tags(self._tags)
        )
        for key in obsolete:
            if key != form_key(pause):
                await self.run.drop(key)
        fields = keyset(
            pause,
            keys=spec.keys,
            need_all=spec.need_all,
            in_process=not spec.suspend,
            since=now,
            deadline=deadline,
            reminder=spec.reminder(now),
        )
        state, reason = await self.run.pause(pause, keyset=fields, message=message, suspend=spec.suspend)
        if state is None or state.state_details.pause_key != pause:
            found = await self._refused(reason)
            if not isinstance(found, State):
                return found
            state = found
        self.log.info("%s", message)
        return state, form

    async def _refused(self, reason: str) -> State[Any] | Leave | None:
        """What the run is in, when Prefect did not let it pause; its paused state if that was of this entry.

        Prefect's client sends a request again whose answer was lost, and is refused what it has already got. None if
        the run has left that pause since.
        """
        found = await self.run.read()
        other = keys_of(found.state.state_details.run_input_keyset) if found.state and found.state.is_paused() else ()
        if is_awaiting(found.tags):  # those of another process's wait are put back
            await self.run.set_tags(with_awaits(found.tags, other))
        now = found.state
        if now is None or now.is_final():
            raise ended_with(now, "before it could wait")
        if now.type in RESCHEDULED:
            return Leave(now)
        if self._in(now):
            return now
        if now.type == StateType.PAUSED:
            raise OneWaitError
        if self._pause in (found.empirical_policy.pause_keys or ()):
            return None
        verb = "suspend" if self.spec.suspend else "pause"
        hint = " Only a deployment's own run can be suspended, not a subflow." if self.spec.suspend else ""
        raise RuntimeError(f"The flow run cannot {verb}: {reason or 'Prefect refused it'}{hint}")

    async def _until_left(self, state: State[Any], heard: Hearing, since: datetime) -> Result | None:
        """Return once the run is not in that paused state any more: with what came, or None if nothing did."""
        deadline, reminder = self.spec.deadline(since), self.spec.reminder(since)
        while True:
            await self._sleep(heard, deadline, reminder)
            left, result = await self._look(state, heard)
            if left:
                return result
            now = datetime.now(UTC)
            if reminder is not None and now >= reminder:
                reminder = None
                await self._remind()
            if deadline is not None and now >= deadline:
                result = await self._give_up(state)
                if result is not None:
                    return result
                deadline = now + timedelta(seconds=_AGAIN_SECONDS)  # cancelled, say: the next look tells

    async def _sleep(self, heard: Hearing, deadline: datetime | None, reminder: datetime | None) -> None:
        seconds = self.spec.poll_seconds
        if not heard.connected.is_set():
            seconds = min(seconds, _UNCONNECTED_POLL_SECONDS)
        for moment in (deadline, reminder):
            if moment is not None:
                seconds = min(seconds, max(0.0, (moment - datetime.now(UTC)).total_seconds()))
        waiting = asyncio.ensure_future(heard.hint.wait())
        await asyncio.wait({waiting}, timeout=seconds)
        waiting.cancel()

    async def _look(self, state: State[Any], heard: Hearing) -> tuple[bool, Result | None]:
        """Whether the run has left the paused state, and what came of it; told so, until Prefect's commit shows."""
        told = heard.taken()
        for pause_seconds in _COMMIT_SECONDS if told else (0.0,):
            await asyncio.sleep(pause_seconds)
            try:
                if told and not heard.rescheduled:
                    answer = answer_in(await self.run.inputs(self.key))
                    if answer is not None:  # written in the transaction that let the run go on
                        return True, answer
                found = await self.run.read()
                left, result = await self._seen(found, state)
            except UNREACHABLE as error:
                self.log.debug("Prefect is out of reach while waiting: %s", error)
                await asyncio.sleep(_UNCONNECTED_POLL_SECONDS)
                return False, None
            except ObjectNotFound:
                raise WaitEndedError("The flow run was deleted while it waited.") from None
            if left or (found.state is not None and found.state.id != state.id):
                return left, result  # not left: being cancelled, and whoever cancels ends this process
        return False, None

    async def _seen(self, found: FlowRun, state: State[Any]) -> tuple[bool, Result | None]:
        now = found.state
        if now is None or now.is_final():
            await self.tidy()
            raise ended_with(now, "while it waited")
        if now.type in RESCHEDULED or handed_over(now, state):
            return True, Leave(now)
        if now.type != StateType.RUNNING:
            answer = answer_in(await self.run.inputs(self.key)) if now.id != state.id and self._in(now) else None
            if answer is not None:  # somebody set the paused state again just as the answer came
                await self.run.go_on("The wait was answered")
            return answer is not None, answer
        states, inputs = await asyncio.gather(self.run.states(), self.run.inputs(self.key))
        since = [known for known in states if known.timestamp > state.timestamp]
        if any(known.type == StateType.PENDING or handed_over(known, state) for known in since):
            return True, Leave(now)  # another process has taken the run
        verdict = inputs.get(verdict_key(self._pause))
        result = answer_in(inputs) or (ended_by(verdict) if verdict is not None else None)
        if result is None:
            self.log.warning("The run left its wait without an answer, and waits again")
        return True, result

    def _in(self, state: State[Any]) -> bool:
        return state.type == StateType.PAUSED and state.state_details.pause_key == self._pause

    async def _give_up(self, state: State[Any]) -> Result | None:
        """Leave the paused state by ourselves, unless an answer was faster or the run is in another state by now."""
        try:
            now = (await self.run.read()).state
            if now is None or not self._in(now) or handed_over(now, state):
                return None
            # First, and only if there is none: who writes a verdict first decides, and an answer overrules it.
            await self.run.put(verdict_key(self._pause), {"action": "timeout"})
            if await self.run.go_on(f"{GAVE_UP} within {self.spec.timeout_seconds:g} s") is None:
                return None
            await asyncio.sleep(_SETTLE_SECONDS)
            inputs = await self.run.inputs(self.key)
        except (*UNREACHABLE, ObjectNotFound) as error:
            self.log.debug("The wait could not be given up yet: %s", error)
            return None
        result = answer_in(inputs) or ended_by(inputs.get(verdict_key(self._pause)) or {})
        if isinstance(result, Expiry):
            self.log.info("%s within %g s", GAVE_UP, self.spec.timeout_seconds)
        return result

    async def _expire(self) -> Result:
        """The time was over while no process of the run waited."""
        await self.run.put(verdict_key(self._pause), {"action": "timeout"})
        self.log.info("%s within %g s", GAVE_UP, self.spec.timeout_seconds)
        return ended_by((await self.run.inputs(self.key))[verdict_key(self._pause)])

    async def _remind(self) -> None:
        payload = {"wait": self.spec.name, "keys": list(self.spec.keys), "waiting_seconds": self.spec.remind_seconds}
        await self.run.remind(self._pause, payload)
        self.log.warning("Still waiting for a signal after %g s", self.spec.remind_seconds)
