"""Structured logs: readable on a terminal, JSON lines when not."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO, cast

from config.settings import LogSettings
from events.redact import redacted
from sluice.display import paragraph, visible

if TYPE_CHECKING:
    import structlog

_OF_LINES = frozenset({"exception", "stack"})
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure_logging(settings: LogSettings, *, role: str | None = None) -> None:
    """Set up structlog on standard error for this process; ``role`` is bound to every line."""
    import structlog  # commands that log nothing do without it

    as_json = settings.format == "json" or (settings.format == "auto" and not sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        # Plain tracebacks: the pretty ones show the local variables, and with them passwords.
        else structlog.dev.ConsoleRenderer(pad_event_to=28, exception_formatter=structlog.dev.plain_traceback)
    )
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _without_hidden,
    ]
    structlog.configure(
        processors=[*processors, renderer, _without_secrets],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.level]),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _StandardError())),
        cache_logger_on_first_use=True,
    )
    if logging.lastResort is not None:  # what libraries log has no other handler
        logging.lastResort.setFormatter(_Formatter(None))
    show_uncaught()
    structlog.contextvars.clear_contextvars()
    if role:
        structlog.contextvars.bind_contextvars(role=role)


def show_uncaught() -> None:
    """What nothing in this process catches is printed without secrets and hidden characters."""

    def in_process(_kind: type[BaseException], error: BaseException, _where: TracebackType | None) -> None:
        print_traceback(error)

    def in_thread(found: threading.ExceptHookArgs) -> None:
        if found.exc_value is not None and not isinstance(found.exc_value, SystemExit):
            print_traceback(found.exc_value)

    sys.excepthook = in_process
    threading.excepthook = in_thread


def print_traceback(error: BaseException) -> None:
    """As `traceback.print_exception`, on standard error, without secrets and hidden characters."""
    sys.stderr.write(paragraph(redacted("".join(traceback.format_exception(error)).rstrip())) + "\n")
    sys.stderr.flush()


def show_handlers_safely() -> None:
    """What any logger of this process writes to a stream holds no secrets and no hidden characters from here on."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    for handler in {handler for logger in loggers for handler in getattr(logger, "handlers", ())}:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler.formatter, _Formatter):
            handler.setFormatter(_Formatter(handler.formatter))


class _StandardError:
    """Standard error; a line is lost where its terminal is gone or its disk is full, and nothing else is."""

    def __init__(self) -> None:
        self._stream = sys.stderr

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


class _Formatter(logging.Formatter):
    """The lines of the libraries that log without structlog, as ``inner`` makes them."""

    def __init__(self, inner: logging.Formatter | None) -> None:
        super().__init__()
        self._inner = inner or logging.Formatter()

    def format(self, record: logging.LogRecord) -> str:
        """Without secrets and hidden characters."""
        return paragraph(redacted(self._inner.format(record)))


def _without_hidden(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Before the renderer, whose colours are control characters, too; only stacks and tracebacks have several lines."""
    return {
        visible(name): paragraph(value) if name in _OF_LINES and isinstance(value, str) else _visible(value)
        for name, value in event.items()
    }


def _visible(value: Any) -> Any:
    match value:
        case str():
            return visible(value)
        case None | bool() | int() | float():
            return value
        case dict():
            return {visible(str(name)): _visible(part) for name, part in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_visible(part) for part in value]
        case _:
            return visible(repr(value))


def _without_secrets(_logger: Any, _method: str, line: Any) -> Any:
    return redacted(line) if isinstance(line, str) else line
