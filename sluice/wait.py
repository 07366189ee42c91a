"""One wait of a flow run: pause or suspend, hear the answer, and remember it for when the flow starts again."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from prefect.client.schemas.objects import FlowRun, State, StateType
from pydantic import BaseModel, ValidationError

from sluice.hearing import Hearing, hearing
from sluice.own_run import UNREACHABLE, OwnRun
from sluice.protocol import (
    AWAITS,
    GAVE_UP,
    keyset,
    opened,
    pause_key,
    response_key,
    verdict_key,
    with_awaits,
)

REMINDER_EVENT: Final = "sluice.signal.reminder"

_COMMIT_SECONDS: Final = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.4)
"""Prefect tells of a state before its transaction is committed: how long to wait before each look."""

_UNCONNECTED_POLL_SECONDS: Final = 2.0
_SETTLE_SECONDS: Final = 0.1
"""How long an answer that was being committed at the deadline may take to become visible."""


@dataclass(frozen=True, slots=True)
class WaitSpec:
    """What the flow asked for; durations in seconds."""

    name: str
    keys: tuple[str, ...]
    need_all: bool
    model: type[BaseModel] | None
    timeout_seconds: float | None
    remind_seconds: float | None
    suspend: bool
    poll_seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """The wait was answered: ``value`` as it was sent, and for which of several keys (None: for all of them)."""

    value: dict[str, Any]
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """The wait was answered by a rejection."""

    by: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Expiry:
    """Nobody answered in time."""


@dataclass(frozen=True, slots=True)
class Leave:
    """The run is suspended: the process must end with this state, and the flow will start again from its top."""

    state: State[Any]


Result = Answer | Refusal | Expiry | Leave


class UnfitError(ValueError):
    """The answer passed Prefect's look at the schema, and the model refuses it."""


class WaitEndedError(RuntimeError):
    """The run was ended (cancelled, failed, …) by somebody else while it waited."""


@dataclass(slots=True)
class Wait:
    """The wait ``spec`` of the run, under ``occurrence`` (how many waits of that name the run has made, from 1).

    ``since`` is when the flow began to wait, if that was before: several answers share one timeout.
    ``complaint`` says what was wrong with the answer before.
    """

    run: OwnRun
    run_id: Any
    spec: WaitSpec
    occurrence: int
    log: logging.Logger | logging.LoggerAdapter[Any]
    since: datetime | None = None
    complaint: str = ""
    pause: str = field(init=False)
    _tags: list[str] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.pause = pause_key(self.spec.name, self.occurrence)

    async def result(self) -> Result:
        """Wait; an answer that came in an earlier attempt of this run is given again at once."""
        before = await self.run.read()
        self._tags = list(before.tags)
        known = await self._known(before)
        if known is not None:
            await self._untag()
            return known
        if self.spec.suspend:
            return Leave(await self._enter())
        async with hearing(self.run_id) as heard:
            entered = datetime.now(UTC)
            state = await self._enter()
            heard.watch(state.timestamp)
            return await self._until_left(state, heard, self.since or entered)

    async def tidy(self) -> None:
        """Take the tags away that say what the run waits for; the answer need not wait for that."""
        if _awaiting(self._tags):
            self._tags = list((await self.run.read()).tags)
            await self._untag()

    async def began(self) -> datetime | None:
        """When the run entered this wait; None if it never did."""
        entered = [known.timestamp for known in await self.run.states() if known.state_details.pause_key == self.pause]
        return max(entered, default=None)

    async def _known(self, before: FlowRun) -> Result | None:
        inputs = await self.run.inputs(self.pause)
        # Prefect forgets the pause keys when a run that had ended is tried again: answers stay, refusals do not.
        fired = self.pause in (before.empirical_policy.pause_keys or set())
        if response_key(self.pause) in inputs:
            return self._ended(inputs)
        if verdict_key(self.pause) in inputs:
            if fired:
                return self._ended(inputs)
            await self.run.drop(verdict_key(self.pause))
            return None
        if fired:
            await self.run.put(response_key(self.pause), {})
            return self._ended(inputs)
        return None

    async def _enter(self) -> State[Any]:
        spec = self.spec
        now = self.since or datetime.now(UTC)
        deadline = _after(now, spec.timeout_seconds)
        what = " or ".join(repr(key) for key in spec.keys)
        message = f"Waits for a signal{f' with the key {what}' if what else ''}"
        if deadline is not None:
            message += f" until {deadline:%Y-%m-%d %H:%M:%S} UTC"
        if self.complaint:
            message += f"; the last answer did not fit: {self.complaint}"
        await asyncio.gather(
            self.run.put_form(self.pause, spec.model, message),
            self.run.set_tags(with_awaits(self._tags, spec.keys)),
        )
        self._tags = with_awaits(self._tags, spec.keys)
        fields = keyset(
            self.pause,
            keys=spec.keys,
            need_all=spec.need_all,
            deadline=None if deadline is None or not spec.suspend else deadline.isoformat(),
            reminder=_iso(_after(now, spec.remind_seconds)) if spec.suspend else None,
        )
        state, reason = await self.run.pause(self.pause, keyset=fields, message=message, suspend=spec.suspend)
        if state is None or state.state_details.pause_key != self.pause:
            await self._untag()
            verb = "suspend" if spec.suspend else "pause"
            hint = " Only a deployment's own run can be suspended, not a subflow." if spec.suspend else ""
            raise RuntimeError(f"The flow run cannot {verb}: {reason or 'it is paused elsewhere already'}{hint}")
        self.log.info("%s", message)
        return state

    async def _until_left(self, state: State[Any], heard: Hearing, entered: datetime) -> Result:
        deadline = _after(entered, self.spec.timeout_seconds)
        reminder = _after(entered, self.spec.remind_seconds)
        while True:
            await self._sleep(heard, deadline, reminder)
            result = await self._look(state, told=heard.taken())
            if result is not None:
                return result
            now = datetime.now(UTC)
            if reminder is not None and now >= reminder:
                reminder = None
                await self._remind()
            if deadline is not None and now >= deadline:
                result = await self._give_up(state)
                if result is not None:
                    return result

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

    async def _look(self, state: State[Any], *, told: bool) -> Result | None:
        """What came of the wait if the run goes on; told that it does, until the server's transaction shows."""
        for pause_seconds in _COMMIT_SECONDS if told else (0.0,):
            await asyncio.sleep(pause_seconds)
            inputs: dict[str, Any] = {}
            try:
                if told:
                    inputs = await self.run.inputs(self.pause)
                    if response_key(self.pause) in inputs:  # written in the transaction that let the run go on
                        return self._ended(inputs)
                found = await self.run.read()
            except UNREACHABLE as error:
                self.log.debug("Prefect is out of reach while waiting: %s", error)
                await asyncio.sleep(_UNCONNECTED_POLL_SECONDS)
                return None
            if found.state is not None and found.state.type == StateType.RUNNING:
                self._tags = list(found.tags)
                return await self._collect(inputs)
            if found.state is None or found.state.is_final():
                ended = found.state.name if found.state else "no state"
                raise WaitEndedError(f"The flow run ended ({ended}) while it waited.")
            if found.state.id != state.id:
                return None  # being cancelled: whoever cancels ends this process
        return None

    async def _collect(self, inputs: dict[str, Any]) -> Result:
        """What came of the wait; ``inputs`` that hold nothing may have been read before the answer was there."""
        known = {response_key(self.pause), verdict_key(self.pause)}
        if known.isdisjoint(inputs):
            inputs, _ = await asyncio.gather(self.run.inputs(self.pause), self._untag())
        else:
            await self._untag()
        if known.isdisjoint(inputs):
            # So that a retry of the whole run knows of it; with a response Prefect has seen to that.
            await self.run.put(response_key(self.pause), {})
        return self._ended(inputs)

    def _ended(self, inputs: dict[str, Any]) -> Result:
        if response_key(self.pause) in inputs:
            value, delivery = opened(inputs[response_key(self.pause)])
            return Answer(value=value, key=delivery.get("key"))
        verdict = inputs.get(verdict_key(self.pause))
        if verdict is None:
            return Answer(value={})
        if verdict.get("action") == "reject":
            return Refusal(by=verdict.get("by"), reason=verdict.get("reason"))
        return Expiry()

    async def _give_up(self, state: State[Any]) -> Result | None:
        """Leave the paused state by ourselves, unless an answer was faster."""
        message = f"{GAVE_UP} within {self.spec.timeout_seconds:g} s"
        mine = await self.run.go_on(message)
        if mine is None:
            return None  # cancelled or ended: the next look tells
        await asyncio.sleep(_SETTLE_SECONDS)
        since = [known for known in await self.run.states() if known.timestamp > state.timestamp]
        if any(known.type == StateType.RUNNING and known.id != mine.id for known in since):
            return await self._collect({})
        await asyncio.gather(self.run.put(verdict_key(self.pause), {"action": "timeout"}), self._untag())
        self.log.info("%s", message)
        return Expiry()

    async def _untag(self) -> None:
        if _awaiting(self._tags):
            self._tags = with_awaits(self._tags, ())
            await self.run.set_tags(self._tags)

    async def _remind(self) -> None:
        payload = {"wait": self.spec.name, "keys": list(self.spec.keys), "waiting_seconds": self.spec.remind_seconds}
        try:
            await self.run.emit(REMINDER_EVENT, payload)
        except UNREACHABLE as error:
            self.log.warning("The reminder was not sent: %s", error)
        self.log.warning("Still waiting for a signal after %g s", self.spec.remind_seconds)


def _awaiting(tags: Sequence[str]) -> bool:
    return any(tag.startswith(AWAITS) for tag in tags)


def parse_answer(model: type[BaseModel] | None, value: dict[str, Any]) -> Any:
    """The answer as the flow asked for it; raises `UnfitError` where the model is stricter than its JSON schema."""
    if model is None:
        return value
    try:
        return model.model_validate_json(json.dumps(value))
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, fault['loc'])) or 'it'}: {fault['msg']}" for fault in error.errors())
        raise UnfitError("; ".join(faults)) from error


def _after(start: datetime, seconds: float | None) -> datetime | None:
    return None if seconds is None else start + timedelta(seconds=seconds)


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


OnReject = Literal["fail", "cancel"]
