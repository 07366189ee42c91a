"""Tell a chat or an incident system something over its webhook, with a secret that no log shows.

Needs the Prefect variable ``webhook_url_<environment>`` and the Secret block ``webhook-token-<environment>``, the
environment being ``SLUICE_ENV``; see `tasks/notifying.py`.
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from prefect import State, flow
from prefect.states import Completed

from sluice import run_name
from tasks.log_lines import log_event
from tasks.notifying import deliver, environment, webhook, webhook_token


@flow(name="notify-webhook", flow_run_name=run_name("notify: {severity}"))
def notify_webhook(text: str, severity: Literal["info", "warning", "critical"] = "info") -> State[int | None]:
    """Send ``text`` to the webhook of this environment.

    Needs the variable ``webhook_url_<environment>`` and the Secret block ``webhook-token-<environment>``. In
    development, a text without them is only logged.
    """
    url = webhook()
    if url is None:
        missing = f"the variable webhook_url_{environment()} is not set"
        if environment() != "development":
            raise ValueError(f"{missing}: set it to the URL of the webhook")
        log_event("webhook not set, message logged only", text=text, severity=severity)
        return Completed(message=f"logged only: {missing}")
    status = deliver(url, webhook_token(), {"text": text, "severity": severity, "environment": environment()})
    return Completed(message=f"delivered to {urlsplit(url).hostname} ({status})", data=status)
