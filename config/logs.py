"""Structured logs: readable on a terminal, JSON lines when not.

A role that logs JSON writes nothing else: logs of libraries, warnings, tracebacks and printed text become lines of the
same form (`speak_json`).
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

from events.redact import redacted
from sluice.display import paragraph, visible

if TYPE_CHECKING:
    import structlog

    from config.settings import LogSettings

FORMAT_VARIABLE: Final = "SLUICE_LOG__FORMAT"

_OF_LINES = frozenset({"exception", "stack"})
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class _Spoken:
    """Whether all output of this process is lines of JSON, and its role."""

    role: str | None = None


def configure_logging(settings: LogSettings, *, role: str | None = None, output: TextIO | None = None) -> None:
    """Set up structlog for this process, on standard error; ``role`` is bound to every line.

    A role speaks JSON altogether, see `speak_json`. With ``output``, only what structlog logs is JSON, and goes there.
    """
    import structlog  # commands that log nothing do not need it

    as_json = output is not None or is_json(settings)
    stream = output or cast("TextIO", _StandardError())
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer() if as_json else _console()
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        *([_named(role)] if role else []),
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _without_hidden,
    ]
    structlog.configure(
        processors=[*processors, renderer, _without_secrets],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.level]),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    if logging.lastResort is not None:  # libraries' logs have no other handler
        logging.lastResort.setFormatter(_Formatter(None))
    show_uncaught()
    structlog.contextvars.clear_contextvars()
    if role and as_json and output is None:
        speak_json(role)


def is_json(settings: LogSettings) -> bool:
    """Whether this process logs JSON: not on a terminal, unless the settings say otherwise."""
    return settings.format == "json" or (settings.format == "auto" and not sys.stderr.isatty())


def for_terminal(settings: LogSettings) -> Callable[[str], str]:
    """Return a JSON log line as this process shows it on its output."""
    if is_json(settings):
        return lambda line: line
    renderer = _console()

    def shown(line: str) -> str:
        fields = json.loads(line)
        return redacted(str(renderer(None, str(fields.get("level", "")), _without_hidden(None, "", fields))))

    return shown


def _console() -> structlog.typing.Processor:
    import structlog

    # Plain tracebacks: the pretty ones show local variables, which may hold passwords.
    return structlog.dev.ConsoleRenderer(pad_event_to=28, exception_formatter=structlog.dev.plain_traceback)


def speak_json(role: str) -> None:
    """Make every line that this process and those that it starts write a JSON object: prints, warnings, tracebacks."""
    os.environ[FORMAT_VARIABLE] = "json"
    _Spoken.role = role
    logging.captureWarnings(capture=True)
    if logging.lastResort is not None:
        logging.getLogger("py.warnings").addHandler(logging.lastResort)  # which is else asked only where none is set
    show_handlers_safely()
    show_uncaught()
    for name in ("stdout", "stderr"):
        if not isinstance(getattr(sys, name), _Lines):
            setattr(sys, name, _Lines(getattr(sys, name), name))


def speak_as_parent(role: str) -> None:
    """`speak_json` where the process that started this one does."""
    if os.environ.get(FORMAT_VARIABLE) == "json":
        speak_json(role)
        if logging.lastResort is not None:
            logging.lastResort.setFormatter(_Formatter(None))


def show_uncaught() -> None:
    """Print uncaught exceptions without secrets and hidden characters."""

    def in_process(_kind: type[BaseException], error: BaseException, _where: TracebackType | None) -> None:
        print_traceback(error)

    def in_thread(found: threading.ExceptHookArgs) -> None:
        if found.exc_value is not None and not isinstance(found.exc_value, SystemExit):
            print_traceback(found.exc_value)

    def unraisable(found: sys.UnraisableHookArgs) -> None:
        if found.exc_value is not None:
            print_traceback(found.exc_value)

    sys.excepthook = in_process
    threading.excepthook = in_thread
    if _Spoken.role:
        sys.unraisablehook = unraisable


def print_traceback(error: BaseException) -> None:
    """As `traceback.print_exception`, on standard error, without secrets and hidden characters."""
    if _Spoken.role:
        trace = "".join(traceback.format_exception(error)).rstrip()
        line = as_line("uncaught", level="critical", event=f"{type(error).__name__}: {error}", exception=trace)
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
        return
    sys.stderr.write(paragraph(redacted("".join(traceback.format_exception(error)).rstrip())) + "\n")
    sys.stderr.flush()


def show_handlers_safely() -> None:
    """Make all loggers of this process write to streams without secrets and hidden characters from now on."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    if _Spoken.role:
        for logger in loggers:
            if isinstance(logger, logging.Logger):
                logger.handlers[:] = [_plain(handler) for handler in logger.handlers]
    for handler in {handler for logger in loggers for handler in getattr(logger, "handlers", ())}:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler.formatter, _Formatter):
            handler.setFormatter(_Formatter(handler.formatter))


def _plain(handler: logging.Handler) -> logging.Handler:
    """The handler, or a plain one in place of one that writes in its own way, as Prefect's does, with colours."""
    own_way = isinstance(handler, logging.StreamHandler) and type(handler).emit is not logging.StreamHandler.emit
    if not own_way or isinstance(handler, logging.FileHandler):
        return handler
    plain = logging.StreamHandler(cast("TextIO", _StandardError()))
    plain.setLevel(handler.level)
    plain.filters[:] = handler.filters
    return plain


class _StandardError:
    """Standard error; if its terminal is gone or its disk is full, only the line is lost."""

    def __init__(self) -> None:
        self._stream = sys.stderr.stream if isinstance(sys.stderr, _Lines) else sys.stderr

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


class _Formatter(logging.Formatter):
    """Formats lines of libraries that log without structlog, by ``inner``."""

    def __init__(self, inner: logging.Formatter | None) -> None:
        super().__init__()
        self._inner = inner or logging.Formatter()

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without secrets and hidden characters; as JSON if all output is."""
        if _Spoken.role is None:
            return paragraph(redacted(self._inner.format(record)))
        trace = self._inner.formatException(record.exc_info) if record.exc_info else None
        return as_line(
            record.name,
            level=record.levelname.lower(),
            event=record.getMessage(),
            at=record.created,
            exception=trace,
            run_id=getattr(record, "flow_run_id", None),
        )


class _Lines(io.TextIOBase):
    """Replaces a standard stream: written text becomes JSON, a line at a time."""

    def __init__(self, stream: TextIO, name: str) -> None:
        super().__init__()
        self.stream = stream
        self._name = name
        self._rest = ""
        self._renew()
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.RLock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        with self._lock, suppress(OSError):
            *lines, self._rest = (self._rest + text).split("\n")
            self.stream.write("".join(self._line(line) for line in lines))
        return len(text)

    def flush(self) -> None:
        with self._lock, suppress(OSError, ValueError):
            rest, self._rest = self._rest, ""
            self.stream.write(self._line(rest))
            self.stream.flush()

    def isatty(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding

    def _line(self, line: str) -> str:
        if not line.strip():
            return ""
        return (line if is_line(line) else as_line(self._name, level="info", event=line)) + "\n"


def is_line(text: str) -> bool:
    """Whether the text is a JSON log line."""
    if not (text.startswith("{") and text.endswith("}")):
        return False
    try:
        return "event" in json.loads(text)
    except ValueError:
        return False


def as_line(
    logger: str, *, level: str, event: str, role: str | None = None, at: float | None = None, **more: str | None
) -> str:
    """Return a JSON log line for output that structlog did not write, without secrets and hidden characters."""
    moment = datetime.now(UTC) if at is None else datetime.fromtimestamp(at, UTC)
    fields = {"logger": logger, **more, "event": event, "role": role or _Spoken.role, "level": level}
    shown = _without_hidden(None, "", {name: value for name, value in fields.items() if value is not None})
    return redacted(json.dumps({**shown, "timestamp": moment.isoformat().replace("+00:00", "Z")}))


def _named(role: str) -> structlog.typing.Processor:
    """Adds the role to every line: a context variable would be missing in other threads."""

    def name(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event.setdefault("role", role)
        return event

    return name


def _without_hidden(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escapes hidden characters before the renderer adds colours; only stacks and tracebacks have several lines."""
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
