"""Log lines for programs: what happened, and the facts of it, as one JSON object."""

from __future__ import annotations

import json
from typing import Any

from prefect import get_run_logger

from sluice.display import in_json


def log_event(event: str, **facts: Any) -> None:
    """Log one line that a person can read and a program can search.

    Prefect drops what a log call has as ``extra=``: its records have a level, a time, a message and the run. So the
    facts are in the message, in an order that stays the same.
    """
    get_run_logger().info("%s", in_json(json.dumps({"event": event, **facts}, ensure_ascii=False, default=str)))
