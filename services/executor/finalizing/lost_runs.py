"""Finds lost runs: runs that an executor began and that no process executes any more."""

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
"""A run of this instance that is on no slot for this long is lost; until then it may be beginning or ending."""


@dataclass(frozen=True, slots=True)
class Debt:
    """A run that is still to be finalized, and how."""

    execution: Execution
    ending: str
    message: str


class LostRuns:
    """Reads the register of executions for lost runs; called periodically, from one thread at a time."""

    def __init__(self, *, executions: Executions, instance: str, lost_seconds: float) -> None:
        self._executions = executions
        self._instance = instance
        self._lost_seconds = lost_seconds
        self._silent: dict[str, float] = {}
        self._missed: dict[str, float] = {}
        self._unknown: dict[str, float] = {}

    def sweep(self, running: Mapping[str, float]) -> list[Debt]:
        """Renew this instance's sign of life and return the lost runs.

        ``running`` has the runs on this instance's slots and when each began, in seconds since the epoch. Raises
        `TransientError` or `Backpressure`.
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
        """Restore records of this instance's runs that Redis has lost."""
        missing = running.keys() - {execution.run_id for execution in found}
        self._unknown = {run_id: self._unknown.get(run_id, now) for run_id in missing}
        for run_id, since in self._unknown.items():
            if now - since >= OWN_AGE_SECONDS:  # else the run may be ending
                self._executions.begin(Execution(run_id=run_id, instance=self._instance, since=running[run_id]))

    def take(self, run_id: str) -> Debt | None:
        """Take an unregistered run, to be finalized by this instance; None when another instance has it after all."""
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
        """Return the runs of silent executors.

        An executor's silence counts from when this process first saw it: after Redis was away, all executors look
        silent.
        """
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
