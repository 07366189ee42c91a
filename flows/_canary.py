"""The canary: waits for the message that Sluice sends itself; registered only where the canary is on."""

from __future__ import annotations

from typing import Final

from prefect import flow

from sluice import wait_for_signal

DEPLOYMENT: Final = {"tags": ["sluice-canary"]}


@flow(name="sluice-canary")
def canary(key: str, timeout_seconds: float = 60.0) -> None:
    """Wait for the canary's message. Sluice sends it, and deletes the run afterwards; docs/operations.md tells why.

    A run that comes too late, as Prefect was away, ends well: its canary has failed already.
    """
    wait_for_signal(key, timeout=timeout_seconds, default=None)
