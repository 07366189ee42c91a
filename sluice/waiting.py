"""`wait_for_signal`: a flow waits for an answer from outside, with plain Prefect underneath."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Collection, Coroutine
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypedDict, TypeVar, Unpack, overload
from uuid import UUID

try:
    from prefect.client.orchestration import get_client
    from prefect.context import FlowRunContext, TaskRunContext
    from prefect.exceptions import Abort, Pause
    from prefect.logging import get_run_logger
except ImportError as error:
    raise ImportError("waiting for signals needs Prefect: pip install 'sluice-events[wait]'") from error

from typing import assert_never

from pydantic import BaseModel

from sluice.ahead import answer_of, in_thread
from sluice.errors import SignalRejected, SignalTimeout
from sluice.own_run import OwnRun
from sluice.protocol import checked_key
from sluice.wait import Wait
from sluice.wait_result import (
    Answer,
    Expiry,
    Leave,
    OnReject,
    Refusal,
    UnfitError,
    WaitSpec,
    checked_description,
    parse_answer,
)

T = TypeVar("T")
ModelT = TypeVar("ModelT", bound=BaseModel)
Seconds = float | timedelta


class WaitOptions(TypedDict, total=False):
    """What every kind of wait takes."""

    timeout: Seconds | None
    suspend: bool
    name: str | None
    description: str | None
    remind_after: Seconds | None
    on_reject: OnReject
    poll_seconds: float


class _NoDefault:
    """Nothing was given; None is a default like any other."""


NO_DEFAULT: Final = _NoDefault()

_LONGEST_SECONDS: Final = 100 * 365.25 * 86_400


@overload
def wait_for_signal(
    key: str | None = None,
    *,
    input: type[ModelT],
    default: T,
    **options: Unpack[WaitOptions],
) -> ModelT | T: ...


@overload
def wait_for_signal(
    key: str | None = None,
    *,
    input: type[ModelT],
    **options: Unpack[WaitOptions],
) -> ModelT: ...


@overload
def wait_for_signal(
    key: str | None = None,
    *,
    keys: Collection[str] = (),
    need: Literal["any", "all"] = "any",
    input: type[BaseModel] | None = None,
    default: Any = NO_DEFAULT,
    **options: Unpack[WaitOptions],
) -> Any: ...


def wait_for_signal(key: str | None = None, **options: Any) -> Any:
    """Pause this flow run until a signal resumes it, and answer with what the signal brought.

    In an async flow the call answers a coroutine: ``await wait_for_signal(...)`` (or `wait_for_signal_async`, whose
    types say so).

    The run is resumed by a signal for its run id, by one for its ``key`` (which it carries as the tag ``awaits:KEY``
    while it waits), or by the Resume button of the Prefect UI. With ``input``, a pydantic model, the UI shows a form,
    answers that do not fit are refused while the run goes on waiting, and the answer is an instance of the model;
    without it, any JSON object is taken and answered as a dictionary. An answer that fits the model's JSON schema, and
    that the model itself refuses, lets the run wait again, with the reason in the message of its state.

    ``keys`` instead of ``key`` waits for several: ``need="any"`` for the first of them, ``need="all"`` for one signal
    each. The answer is then a mapping of the keys that were signalled to their inputs; who resumes the run by its id or
    in the UI answers for every key.

    ``timeout`` (seconds or timedelta) ends the wait with ``default``, or with `SignalTimeout` if there is none; with
    ``need="all"`` it is the time for all of the answers.
    ``remind_after`` emits the Prefect event ``sluice.signal.reminder`` on the run once, when nobody has answered by
    then. A signal that rejects raises `SignalRejected`, which fails the run unless it is caught; with
    ``on_reject="cancel"`` the run ends as Cancelled instead, and nothing behind the wait runs.

    ``suspend=True`` ends the process while the run waits: it holds no memory and no worker slot, and the answer starts
    the flow again from its top. Waits that were answered before give their answer again at once; tasks that were done
    are skipped if their results are persisted (``persist_result=True``). It needs a deployment, and for ``timeout`` and
    ``remind_after`` the resumer role, since no process of the run is left.

    ``description`` says in markdown what is asked, with the facts that somebody decides by; it stands above the form.
    Text from outside goes through `sluice.in_markdown` first.

    ``name`` tells the waits of one run apart and is what an answer is remembered under; it defaults to the key. A
    second wait under one name in one run is another wait. A run is in one wait at a time: of several that its tasks or
    coroutines begin at the same time, each begins when the one before it is answered, and its time begins then.

    Raises `ValueError` or `TypeError` for what no wait can be made of, before the run is paused.
    """
    return dispatch(lambda: wait_for_signal_async(key, **options))


@overload
def wait_for_signal_async(
    key: str | None = None,
    *,
    input: type[ModelT],
    default: T,
    **options: Unpack[WaitOptions],
) -> Coroutine[Any, Any, ModelT | T]: ...


@overload
def wait_for_signal_async(
    key: str | None = None,
    *,
    input: type[ModelT],
    **options: Unpack[WaitOptions],
) -> Coroutine[Any, Any, ModelT]: ...


@overload
def wait_for_signal_async(
    key: str | None = None,
    *,
    keys: Collection[str] = (),
    need: Literal["any", "all"] = "any",
    input: type[BaseModel] | None = None,
    default: Any = NO_DEFAULT,
    **options: Unpack[WaitOptions],
) -> Coroutine[Any, Any, Any]: ...


async def wait_for_signal_async(
    key: str | None = None,
    *,
    keys: Collection[str] = (),
    need: Literal["any", "all"] = "any",
    input: type[BaseModel] | None = None,  # noqa: A002 - Prefect's word for it
    timeout: Seconds | None = None,  # noqa: ASYNC109 - it bounds the wait, not this call
    default: Any = NO_DEFAULT,
    suspend: bool = False,
    name: str | None = None,
    description: str | None = None,
    remind_after: Seconds | None = None,
    on_reject: OnReject = "fail",
    poll_seconds: float = 10.0,
) -> Any:
    """`wait_for_signal` for async flows whose authors check types."""
    given = _keys(key, keys)
    wanted = tuple(dict.fromkeys(given.values()))
    several = key is None and bool(wanted)
    _check_choices(need, on_reject, input)
    spec = WaitSpec(
        name=checked_key(name, what="name of the wait") if name is not None else "-".join(wanted) or "signal",
        keys=wanted,
        need_all=need == "all",
        model=input,
        description=checked_description(description),
        timeout_seconds=None if timeout is None else _seconds(timeout, "timeout"),
        remind_seconds=None if remind_after is None else _seconds(remind_after, "remind_after"),
        suspend=suspend,
        poll_seconds=_seconds(poll_seconds, "poll_seconds"),
    )
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        raise RuntimeError("wait_for_signal must be called in a flow run.")
    if suspend and TaskRunContext.get() is not None:
        raise RuntimeError("A task cannot suspend its flow run: call wait_for_signal(suspend=True) in the flow itself.")
    called_in, run_id = context, context.flow_run.id

    async def wait(answer: asyncio.Future[Any]) -> Any:
        return await _wait(answer, called_in, run_id, spec, several=several, default=default, on_reject=on_reject)

    result = await answer_of(run_id, wait)
    if several and isinstance(result, _Answers):
        return {as_given: result[one] for as_given, one in given.items() if one in result}
    return result


class _Answers(dict[str, Any]):
    """The answers of a wait for several keys, by key; not to be mistaken for a default."""


async def _wait(
    answer: asyncio.Future[Any],
    context: FlowRunContext,
    run_id: UUID,
    spec: WaitSpec,
    *,
    several: bool,
    default: Any,
    on_reject: OnReject,
) -> Any:
    """Wait until there is an answer that fits, or all of them, and tidy up behind ``answer``."""
    answers = _Answers()
    async with get_client() as client:
        run = OwnRun(client, run_id)
        since: datetime | None = None
        complaint = ""
        while True:
            remaining = tuple(known for known in spec.keys if known not in answers)
            wait = Wait(
                run=run,
                run_id=run_id,
                spec=dataclasses.replace(spec, keys=remaining),
                occurrence=_occurrence(context, spec.name),
                log=get_run_logger(context),
                since=since,
                complaint=complaint,
            )
            result = await wait.result()
            if not isinstance(result, Answer):
                return await _unanswered(result, spec, run, default=default, on_reject=on_reject)
            try:
                value = parse_answer(spec.model, result.value)
            except UnfitError as error:
                complaint = str(error)
                wait.log.warning("The answer does not fit, and the run goes on waiting: %s", complaint)
            else:
                complaint = ""
                answers |= dict.fromkeys(remaining if result.key is None else (result.key,), value)
                if not (several and spec.need_all) or len(answers) == len(spec.keys):
                    answer.set_result(answers if several else value)
            try:
                await wait.tidy()
            except asyncio.CancelledError:
                if answer.done():  # the loop is being closed, because the flow has ended: what is begun is finished
                    await wait.tidy()
                raise
            if answer.done():
                return answer.result()
            if since is None and spec.timeout_seconds is not None:
                since = await wait.began()


async def _unanswered(
    result: Refusal | Expiry | Leave, spec: WaitSpec, run: OwnRun, *, default: Any, on_reject: OnReject
) -> Any:
    match result:
        case Leave(state=state):
            raise Pause(state=state)
        case Expiry():
            if default is not NO_DEFAULT:
                return default
            raise SignalTimeout(f"no signal for {spec.wanted or spec.name} came within {spec.timeout_seconds:g} s")
        case Refusal(by=by, reason=reason):
            rejected = SignalRejected(by=by, reason=reason)
            if on_reject == "fail":
                raise rejected
            # The engine must not put its own final state over this one: it leaves a run alone that ends in `Abort`.
            ended = Abort(str(rejected))
            ended.state = await run.cancel(str(rejected))  # type: ignore[attr-defined]  # read by Prefect's engine
            raise ended from rejected
        case _:
            assert_never(result)


def _keys(key: str | None, keys: Collection[str]) -> dict[str, str]:
    """The keys as they were given, each with the key as it is compared."""
    if isinstance(keys, str):
        raise TypeError("`keys` is a collection of keys; for one key give `key`")
    if key is not None and keys:
        raise ValueError("give `key` or `keys`, not both")
    return {one: checked_key(one) for one in (keys if key is None else (key,))}


def _seconds(duration: Seconds, name: str) -> float:
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"`{name}` must be seconds or a timedelta, not {duration!r}")
    if not 0 < seconds <= _LONGEST_SECONDS:  # which no NaN is
        hint = "" if name == "poll_seconds" else "; leave it out to wait without an end"
        raise ValueError(f"`{name}` must be more than 0 seconds and at most 100 years, not {duration!r}{hint}")
    return float(seconds)


def _check_choices(need: str, on_reject: str, model: object) -> None:
    if need not in {"any", "all"}:
        raise ValueError(f'`need` is "any" or "all", not {need!r}')
    if on_reject not in {"fail", "cancel"}:
        raise ValueError(f'`on_reject` is "fail" or "cancel", not {on_reject!r}')
    if model is not None and not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise TypeError(f"`input` must be a pydantic model, a class, not {model!r}")


def _occurrence(context: FlowRunContext, name: str) -> int:
    # Prefect counts a run's own pauses in the same place; it starts anew with each attempt, as the flow does.
    counts = context.observed_flow_pauses
    counter = f"sluice {name}"
    counts[counter] = counts.get(counter, 0) + 1
    return counts[counter]


def dispatch(start: Callable[[], Coroutine[Any, Any, T]]) -> Any:
    """The coroutine, in an async flow or task; in another one what it answers, from a thread of its own."""
    task = TaskRunContext.get()
    flow = FlowRunContext.get()
    owner = task.task if task is not None else flow.flow if flow is not None else None
    return start() if owner is not None and owner.isasync else in_thread(start)
