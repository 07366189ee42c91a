"""Secrets and required settings: where they come from, and how they stay out of every log."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from prefect.blocks.system import Secret
from pydantic import SecretStr
from typing_extensions import override


def secret_of(block: str, variable: str) -> SecretStr:
    """The Secret block, else the environment variable; `ValueError` says where it may be put if it is nowhere.

    Ask inside the task that needs it, and hand on the `SecretStr`: it is shown as stars, also among a task's inputs.
    """
    try:
        value: Any = cast("Secret[Any]", Secret.load(block)).get()
        return SecretStr(value if isinstance(value, str) else json.dumps(value))  # Prefect has read what is JSON
    except ValueError as error:
        if found := os.environ.get(variable):
            return SecretStr(found)
        raise ValueError(f"there is no secret: create the Secret block {block}, or set {variable}") from error


def required(*variables: str) -> dict[str, str]:
    """These environment variables; `ValueError` names every one that is not set, all at once."""
    missing = [name for name in variables if not os.environ.get(name)]
    if missing:
        raise ValueError(f"set the environment variable{'s'[: len(missing) - 1]} {', '.join(missing)}")
    return {name: os.environ[name] for name in variables}


class LogMask(logging.Filter):
    """Takes a secret out of whatever is logged, also where a library put it in."""

    def __init__(self, secret: SecretStr) -> None:
        super().__init__()
        self._secret = secret.get_secret_value()

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        if self._secret:
            record.msg, record.args = record.getMessage().replace(self._secret, "********"), ()
        return True


@contextmanager
def masked(secret: SecretStr) -> Iterator[None]:
    """No line that Prefect or httpx logs within this block shows the secret."""
    mask = LogMask(secret)
    loggers = [logging.getLogger(name) for name in ("prefect.flow_runs", "prefect.task_runs", "httpx")]
    for logger in loggers:
        logger.addFilter(mask)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(mask)
