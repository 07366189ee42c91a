"""Common parts of all commands: their options, and how their errors are printed.

An error becomes a sentence on standard error, or with ``--json`` an object, and an exit code.
"""

from __future__ import annotations

import asyncio
import inspect
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Annotated, Any, Final, get_args, get_type_hints

import typer
from pydantic.fields import FieldInfo
from typer.core import TyperCommand
from typing_extensions import override

from events.errors import Backpressure, ConfigError, NotFound, Refused, SluiceError, TransientError
from events.redact import redacted
from services.cli.output import say, say_json
from services.cli.terminal.options import AGE_OR_TIME, TIME
from services.cli.terminal.times import Utc, refuse_empty, show_times

USAGE: Final = "usage"
"""Code of the error of a command that is called with wrong arguments."""

_REMEDIES: Final[dict[str, str]] = {
    USAGE: "call the command with --help, which lists its arguments and options",
    "config": "correct what the message names, and call the command again; `sluice check` finds all problems at once",
    "not-found": "list the ids with the command `list` of the same group, and give one of them or its beginning",
    "ambiguous": "give more characters of the id, or what the message asks for",
    "unavailable": "`sluice status` says which part does not respond; call the command again when it does",
    "refused": "correct the file, or say in a contract how to read it (docs/contracts.md)",
    "full": "Redis has no memory left: `sluice doctor` says how much it has; free some, and call the command again",
    "failed": "`sluice doctor` looks for problems of this machine and its servers",
}


class Command(TyperCommand):
    """A command whose errors become exit codes: 1 failed, 2 misuse or bad configuration, 130 interrupted."""

    @override
    def invoke(self, ctx: Any) -> Any:
        try:
            with _interrupted_at_once():
                return super().invoke(ctx)
        except SluiceError as error:
            tell_error(error, as_json=bool(ctx.params.get("as_json")))
            raise typer.Exit(2 if isinstance(error, ConfigError) else 1) from error
        except (KeyboardInterrupt, asyncio.CancelledError) as error:
            raise typer.Exit(130) from error


@contextmanager
def _interrupted_at_once() -> Iterator[None]:
    """Let Ctrl-C end the command wherever it is.

    By default `asyncio.run` turns Ctrl-C into a cancellation of the main task. Library code that is closing a
    connection may swallow the cancellation, and then the key has no effect. If the program already has a handler of its
    own, or this is not the main thread, which alone may set one, nothing changes.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


async def _woken_by_signals(work: Coroutine[Any, Any, Any]) -> None:
    """Await the work in an event loop that any signal wakes.

    Ctrl-C in the moment in which the loop begins to wait would else be seen at the next event, which may never come. A
    handler in the loop, here of a signal that else does nothing, has each signal written to a socket that it watches.
    """
    if threading.current_thread() is threading.main_thread():
        asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, _do_nothing)
    await work


def _do_nothing() -> None:
    pass


class Commands(typer.Typer):
    """A group of commands whose functions may be coroutine functions, and whose options may come from dataclasses."""

    @override
    def command(self, name: str | None = None, *, shows_times: bool = False, **options: Any) -> Callable[[Any], Any]:
        """Add a function, which may be a coroutine function; with ``shows_times`` the command has ``--utc``.

        A parameter whose type is a dataclass becomes an option for each of its fields. The HTTP API has the same
        filters from the same dataclasses, so that both are described once.
        """
        register = super().command(name, **{"cls": Command, **options})

        def add(function: Any) -> Any:
            register(_as_typer_takes_it(function, shows_times=shows_times))
            return function

        return add


def _as_typer_takes_it(function: Callable[..., Any], *, shows_times: bool) -> Callable[..., Any]:
    """Return a function with plain options for parameters, which typer reads from its signature."""
    signature = inspect.signature(function, eval_str=True)
    groups: dict[str, Any] = {
        one.name: one.annotation for one in signature.parameters.values() if is_dataclass(one.annotation)
    }

    @wraps(function)
    def command(**given: Any) -> None:
        if shows_times:
            show_times(utc=given.pop("utc"))
        for name, group in groups.items():
            values = {field.name: given.pop(field.name) for field in fields(group)}
            refuse_empty(values.get("since"), values.get("until"))
            given[name] = group(**values)
        done = function(**given)
        if inspect.iscoroutine(done):
            asyncio.run(_woken_by_signals(done))

    found = list(_parameters(signature))
    if shows_times:
        found.append(inspect.Parameter("utc", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Utc))
    command.__signature__ = signature.replace(parameters=found)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in found}
    return command


def _parameters(signature: inspect.Signature) -> Iterator[inspect.Parameter]:
    """Yield the parameters of a function, with one for each field of those that are dataclasses."""
    for one in signature.parameters.values():
        if is_dataclass(one.annotation):
            hints = get_type_hints(one.annotation, include_extras=True)
            for field in fields(one.annotation):
                kind = _option(field.name, hints[field.name])
                yield inspect.Parameter(field.name, one.KEYWORD_ONLY, default=field.default, annotation=kind)
        else:
            yield one.replace(kind=one.KEYWORD_ONLY)


def _option(name: str, annotation: Any) -> Any:
    """Return typer's annotation of a field that pydantic's `Field` describes; any other annotation unchanged."""
    kind, *more = get_args(annotation)
    described = next((one.description for one in more if isinstance(one, FieldInfo)), None)
    if described is None:
        return annotation
    if name in {"since", "until"}:
        return Annotated[kind, typer.Option(f"--{name}", help=f"{described}: {AGE_OR_TIME}.", **TIME)]
    return Annotated[kind, typer.Option(f"--{name}", help=f"{described}.")]


def tell_error(error: SluiceError, *, as_json: bool) -> None:
    """Print an error to standard error: a sentence for each of its problems, or one object with all of them."""
    problems = list(error.problems) if isinstance(error, ConfigError) else [str(error)]
    if as_json:
        tell_object(_code(error), *problems)
        return
    for problem in problems:
        say(f"error: {problem}")


def tell_object(code: str, *problems: str) -> None:
    """Print an error to standard error as a JSON object with ``code``, ``message`` and ``remedy``.

    Secrets in the message are masked. A code without a remedy of its own has that of ``failed``.
    """
    remedy = _REMEDIES.get(code, _REMEDIES["failed"])
    told = {"code": code, "message": redacted("\n".join(problems)), "remedy": remedy}
    say_json(told)


def _code(error: SluiceError) -> str:
    match error:
        case ConfigError():
            return "config"
        case Refused():
            return error.code
        case NotFound():
            return "not-found"
        case TransientError():
            return "unavailable"
        case Backpressure():
            return "full"
        case _:
            return "failed"
