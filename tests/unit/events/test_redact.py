"""No password gets into a text that is shown or logged."""

from __future__ import annotations

import logging

import pytest
import structlog

from config.logs import configure_logging
from config.settings import LogSettings
from events.redact import redacted, without_credentials


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://:pw123@127.0.0.1:6390/0", "redis://:***@127.0.0.1:6390/0"),
        ("cannot reach rediss://sluice:p@ss/w:rd@host/0, trying", "cannot reach rediss://sluice:***@host/0, trying"),
        ("redis://host/0?password=pw123&db=1", "redis://host/0?password=***&db=1"),
        ("http://ada:pw123@host:4200/api", "http://***@host:4200/api"),
        ("http://pw123@host:4200/api", "http://***@host:4200/api"),
        ('{"url": "postgresql+psycopg://u:pw123@db/x"}', '{"url": "postgresql+psycopg://u:***@db/x"}'),
        ("Authorization: Basic c2x1aWNlOnB3MTIz", "Authorization: Basic ***"),
        ("Authorization: Bearer pw123pw123", "Authorization: Bearer ***"),
        ("http://127.0.0.1:4200/runs/flow-run/a@b", "http://127.0.0.1:4200/runs/flow-run/a@b"),
        ("redis://127.0.0.1:6390/0 and mail to a@b.example", "redis://127.0.0.1:6390/0 and mail to a@b.example"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_passwords_are_hidden_and_the_rest_is_not(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_a_web_address_is_shown_without_credentials() -> None:
    assert without_credentials("http://ada:pw@host:4200/x?y=1") == "http://host:4200/x?y=1"
    assert without_credentials("http://host/a@b") == "http://host/a@b"


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_line_of_log_holds_no_password_in_a_value_or_in_a_traceback(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = structlog.get_config()
    try:
        configure_logging(LogSettings(format=form))
        configured = structlog.get_config()
    finally:
        structlog.configure(**before)
    log = structlog.wrap_logger(
        structlog.PrintLogger(),
        processors=configured["processors"],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    url = "redis://sluice:pw123@127.0.0.1:6390/0"
    try:
        raise ValueError(f"cannot use {url}")  # noqa: TRY301 - there is nothing to abstract
    except ValueError:
        log.exception("connecting", url=url, nested={"url": url})
    said = "".join(capsys.readouterr())
    assert "pw123" not in said
    assert "sluice:***@127.0.0.1" in said
