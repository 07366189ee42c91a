"""Tell somebody: a JSON message to the webhook of this environment, with a token that no log shows.

Which webhook: the Prefect variable ``webhook_url_<environment>``, the environment being ``SLUICE_ENV``. Its token: the
Secret block ``webhook-token-<environment>``, or the environment variable ``WEBHOOK_TOKEN``.
"""

from __future__ import annotations

import os
import time
from typing import Any
from urllib.parse import urlsplit

import httpx
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.variables import Variable
from pydantic import SecretStr

from tasks.credentials import masked, secret_of
from tasks.log_lines import log_event
from tasks.retries import NETWORK, Unavailable

TOO_MANY_REQUESTS = 429


def environment() -> str:
    """Which one this is: development, staging or production."""
    return os.environ.get("SLUICE_ENV", "development")


def webhook() -> str | None:
    """The URL of this environment's webhook, None where none is set; `ValueError` for one that is no URL."""
    name = f"webhook_url_{environment()}"
    url = Variable.get(name)
    if not url:
        return None
    if not isinstance(url, str) or urlsplit(url).scheme not in {"http", "https"}:
        raise ValueError(f"set the Prefect variable {name} to the URL of the webhook")
    return url


def webhook_token() -> SecretStr:
    """The token of this environment's webhook; `ValueError` says where it may be put if it is nowhere."""
    return secret_of(f"webhook-token-{environment()}", "WEBHOOK_TOKEN")


@task(**NETWORK, cache_policy=NO_CACHE)
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
            raise Unavailable(f"the webhook at {host} did not answer ({type(error).__name__})") from None
        milliseconds = round(1000 * (time.perf_counter() - started))
        log_event("webhook answered", host=host, status=answer.status_code, ms=milliseconds, said=answer.text[:200])
        if answer.is_server_error or answer.status_code == TOO_MANY_REQUESTS:
            raise Unavailable(f"the webhook at {host} answered {answer.status_code}")
        if answer.is_error:
            raise ValueError(f"the webhook at {host} answered {answer.status_code}: not tried again")
        return answer.status_code
