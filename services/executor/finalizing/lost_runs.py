"""Finds the runs that nobody executes any more although somebody began to, and has them settled."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from services.executor.end_reason import EndReason
from services.executor.finalizing import unrecorded_runs
from services.store.runs.executions import Execution, Executions

log = structlog.get_logger()

OWN_AGE_SECONDS: Final = 5.0
"""A run of this instance that is on none of its slots for longer is lost; a younger one is just beginning or ending."""


@dataclass(frozen=True, slots=True)
class Debt:
    """A run that Prefect must be told the end of."""

    execution: Execution
    ending: str
    message: str


class LostRuns:
    """Looks through the register; called again and again, from any one thread at a time."""

    def __init__(self, *, executions: Executions, instance: str, lost_seconds: float) -> None:
        self._executions = executions
        self._instance = instance
        self._lost_seconds = lost_seconds
        self._silent: dict[str, float] = {}
        self._missed: dict[str, float] = {}
        self._unknown: dict[str, float] = {}

    def sweep(self, running: Mapping[str, float]) -> list[Debt]:
        """One look, and a sign of life; ``running`` are the runs on this instance's slots, and since when (epoch).

        Raises `TransientError` or `Backpressure`.
        """
        self._executions.live(self._instance)
        now = time.monotonic()
        found = self._executions.all()
        self._note_again(found, running, now)
        message = "The process that was to see the run through died, and the run with it."
        debts = [_debt(execution, message) for execution in self._own_lost(found, running, now)]
        for execution in self._others_lost(found, now):
            taken = self._executions.take_over(execution, self._instance)
            if taken is not None:
                log.warning("taking over a run of a dead executor", run=taken.run_id, executor=execution.instance)
                message = (
                    f"The executor {execution.instance} that ran the run has not been heard of for "
                    f"{self._lost_seconds:g} s: its process or its machine died, and the run with it."
                )
                debts.append(_debt(taken, message))
        return debts

    def _note_again(self, found: list[Execution], running: Mapping[str, float], now: float) -> None:
        """Write down again what Redis has lost."""
        missing = running.keys() - {execution.run_id for execution in found}
        self._unknown = {run_id: self._unknown.get(run_id, now) for run_id in missing}
        for run_id, since in self._unknown.items():
            if now - since >= OWN_AGE_SECONDS:  # else it is just ending
                self._executions.begin(Execution(run_id=run_id, instance=self._instance, since=running[run_id]))

    def take(self, run_id: str) -> Debt | None:
        """A run that nobody holds, to be settled by this instance; None when somebody has it after all."""
        execution = Execution(
            run_id, self._instance, time.time(), ending=EndReason.LOST, message=unrecorded_runs.MESSAGE
        )
        return _debt(execution, unrecorded_runs.MESSAGE) if self._executions.begin(execution) is None else None

    def _own_lost(self, found: list[Execution], running: Mapping[str, float], now: float) -> list[Execution]:
        mine = {
            execution.run_id: execution
            for execution in found
            if execution.instance == self._instance and execution.run_id not in running
        }
        self._missed = {run_id: self._missed.get(run_id, now) for run_id in mine}
        return [mine[run_id] for run_id, since in self._missed.items() if now - since >= OWN_AGE_SECONDS]

    def _others_lost(self, found: list[Execution], now: float) -> list[Execution]:
        """Silence counts only from when this process saw it: a Redis that was away makes everybody silent at once."""
        others = {execution.instance for execution in found} - {self._instance}
        silent = {instance for instance in others if not self._executions.lives(instance)}
        self._silent = {instance: self._silent.get(instance, now) for instance in silent}
        half = self._lost_seconds / 2
        dead = {instance for instance, since in self._silent.items() if now - since >= half}
        return [execution for execution in found if execution.instance in dead]


def _debt(execution: Execution, message: str) -> Debt:
    if execution.ending is not None:
        return Debt(execution, execution.ending, execution.message or message)
    return Debt(execution, EndReason.LOST, message)
