"""The client library of Sluice: all that flow authors and other services ever import.

`wait_for_signal` needs only Prefect, `publish` and `send_signal` need only redis-py; importing this needs neither.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sluice.errors import SignalRejected, SignalTimeout

if TYPE_CHECKING:
    from sluice.sending import publish, send_signal
    from sluice.waiting import wait_for_signal, wait_for_signal_async

__all__ = ["SignalRejected", "SignalTimeout", "publish", "send_signal", "wait_for_signal", "wait_for_signal_async"]

_HOMES = {
    "publish": "sluice.sending",
    "send_signal": "sluice.sending",
    "wait_for_signal": "sluice.waiting",
    "wait_for_signal_async": "sluice.waiting",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)
