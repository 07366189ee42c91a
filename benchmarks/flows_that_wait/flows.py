"""Flows that write down when they come to the line behind their wait."""

from __future__ import annotations

import time
from pathlib import Path

from prefect import flow
from prefect.flow_runs import pause_flow_run, suspend_flow_run

import sluice


def note(path: str) -> None:
    with Path(path).open("a") as file:
        file.write(f"{time.time()}\n")


@flow(name="paused-sluice")
def paused_sluice(path: str, key: str, rounds: int) -> None:
    for _ in range(rounds):
        sluice.wait_for_signal(key)
        note(path)


@flow(name="paused-plain")
def paused_plain(path: str, key: str, rounds: int) -> None:
    del key
    for _ in range(rounds):
        pause_flow_run()
        note(path)


@flow
def suspended_sluice(path: str, key: str) -> None:
    sluice.wait_for_signal(key, suspend=True)
    note(path)


@flow(name="suspended-plain")
def suspended_plain(path: str, key: str) -> None:
    suspend_flow_run(key=key)
    note(path)
