"""Every line of a log is fed all characters that hide something, and none of them comes out."""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import structlog

from config.logs import configure_logging, show_handlers_safely, show_uncaught
from config.settings import LogSettings
from tests.support.hidden import HOSTILE, hidden_in

NESTED: dict[str, Any] = {HOSTILE: [HOSTILE, {HOSTILE: HOSTILE}]}


FORGED = "\nerror: nothing is wrong"


def test_what_nothing_catches_is_shown_with_all_that_is_hidden(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ValueError(f"{HOSTILE} redis://:s3cret@localhost")

    for module in (sys, threading):
        monkeypatch.setattr(module, "excepthook", module.excepthook)
    show_uncaught()
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    try:
        fail()
    except ValueError as error:
        sys.excepthook(ValueError, error, None)
    said = capsys.readouterr().err
    assert said.count("u202e") == 2
    assert not hidden_in(said, lines=True)
    assert "s3cret" not in said


def test_what_a_flow_logs_reaches_the_terminal_with_all_that_is_hidden() -> None:
    stream = io.StringIO()
    log = logging.getLogger("a.flow")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("flow: %(message)s"))
    log.addHandler(handler)
    try:
        show_handlers_safely()
        show_handlers_safely()
        log.warning("read %s%s", HOSTILE, FORGED)
    finally:
        log.removeHandler(handler)
    said = stream.getvalue()
    assert said.startswith("flow: read h")
    assert "u202e" in said
    assert not hidden_in(said, lines=True)
    assert FORGED not in said


@pytest.fixture
def configured() -> Iterator[Callable[[str], Any]]:
    before = structlog.get_config()
    formatter = logging.lastResort.formatter if logging.lastResort else None

    def configure(form: str) -> Any:
        configure_logging(LogSettings(format=cast(Any, form)))
        return structlog.wrap_logger(
            structlog.PrintLogger(),
            processors=structlog.get_config()["processors"],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        )

    yield configure
    structlog.configure(**before)
    if logging.lastResort:
        logging.lastResort.setFormatter(formatter)


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_line_of_log_shows_all_that_is_hidden(
    form: str, configured: Callable[[str], Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    log = configured(form)
    log.info(HOSTILE, **{HOSTILE: HOSTILE}, nested=NESTED, path=Path(HOSTILE), error=ValueError(HOSTILE))
    log.info("a\nb", raw=HOSTILE.encode(errors="replace"))
    try:
        raise ValueError(HOSTILE)  # noqa: TRY301 - there is nothing to abstract
    except ValueError:
        log.exception("failed", stack_info=True)
    said = "".join(capsys.readouterr())
    assert "ValueError: h" in said
    colours = ("\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[35m", "\x1b[36m", "\x1b[32m\x1b[1m")
    for colour in colours if form == "console" else ():
        said = said.replace(colour, "")
    assert not hidden_in(said, lines=True)
    assert "a\nb" not in said


def test_a_library_that_logs_shows_all_that_is_hidden(configured: Callable[[str], Any]) -> None:
    configured("json")
    handler = logging.lastResort
    assert handler is not None
    try:
        raise ValueError(HOSTILE)  # noqa: TRY301 - there is nothing to abstract
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, "x", 1, "%s", (HOSTILE,), (ValueError, error, None))
    assert not hidden_in(handler.format(record), lines=True)
