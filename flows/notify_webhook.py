"""Tell a chat or an incident system something over its webhook, with a secret that no log shows.

Which webhook: the Prefect variable ``webhook_url_<environment>``, the environment being ``SLUICE_ENV``. Its token: the
Secret block ``webhook-token-<environment>``, or the environment variable ``WEBHOOK_TOKEN``.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast
from urllib.parse import urlsplit

import httpx
from prefect import State, flow, get_run_logger, task
from prefect.blocks.system import Secret
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed
from prefect.tasks import exponential_backoff
from prefect.variables import Variable
from pydantic import SecretStr
from typing_extensions import override

from sluice.display import in_json


class PayloadMask(logging.Filter):
    """Takes a secret out of whatever is logged, also where a library put it in."""

    def __init__(self, secret: SecretStr) -> None:
        super().__init__()
        self._secret = secret.get_secret_value()

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = record.getMessage().replace(self._secret, "********"), ()
        return True


@contextmanager
def masked(secret: SecretStr) -> Iterator[None]:
    """No line that Prefect or httpx logs within this block shows the secret."""
    mask = PayloadMask(secret)
    loggers = [logging.getLogger(name) for name in ("prefect.flow_runs", "prefect.task_runs", "httpx")]
    for logger in loggers:
        logger.addFilter(mask)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(mask)


def token_of(environment: str) -> SecretStr:
    """The token of this environment; `ValueError` says where it may be put if it is nowhere."""
    block = f"webhook-token-{environment}"
    try:
        return SecretStr(cast("Secret[str]", Secret.load(block)).get())
    except ValueError as error:
        if found := os.environ.get("WEBHOOK_TOKEN"):
            return SecretStr(found)
        raise ValueError(f"there is no token: create the Secret block {block}, or set WEBHOOK_TOKEN") from error


def log_event(event: str, **fields: Any) -> None:
    """One line that a program can read: a JSON object with what happened and the facts of it."""
    get_run_logger().info("%s", in_json(json.dumps({"event": event, **fields}, ensure_ascii=False)))


@task(retries=3, retry_delay_seconds=exponential_backoff(1), retry_jitter_factor=0.5, cache_policy=NO_CACHE)
def deliver(url: str, token: SecretStr, body: dict[str, Any]) -> int:
    """Post the body; answers the HTTP status. No error that leaves here repeats what the server said."""
    started = time.perf_counter()
    host = urlsplit(url).hostname
    with masked(token):
        try:
            answer = httpx.post(
                url, json=body, headers={"Authorization": f"Bearer {token.get_secret_value()}"}, timeout=10
            )
        except httpx.TransportError as error:
            raise RuntimeError(f"the webhook at {host} did not answer ({type(error).__name__})") from None
        milliseconds = round(1000 * (time.perf_counter() - started))
        log_event("webhook answered", host=host, status=answer.status_code, ms=milliseconds, said=answer.text[:200])
        if answer.is_error:
            raise RuntimeError(f"the webhook at {host} answered {answer.status_code}")
        return answer.status_code


@flow(name="notify-webhook")
def notify_webhook(text: str, severity: Literal["info", "warning", "critical"] = "info") -> State[int | None]:
    """Send ``text`` to the webhook of this environment; in development without one, only log it."""
    environment = os.environ.get("SLUICE_ENV", "development")
    url = Variable.get(f"webhook_url_{environment}")
    if not url and environment == "development":
        log_event("webhook not set, message logged only", text=text, severity=severity)
        return Completed(message=f"logged only: the variable webhook_url_{environment} is not set")
    if not isinstance(url, str) or urlsplit(url).scheme not in {"http", "https"}:
        raise ValueError(f"set the Prefect variable webhook_url_{environment} to the URL of the webhook")
    status = deliver(url, token_of(environment), {"text": text, "severity": severity, "environment": environment})
    return Completed(message=f"delivered to {urlsplit(url).hostname} ({status})", data=status)
