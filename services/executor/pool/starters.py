"""How slots and fork servers start a process for one run: as a fork of themselves, or as a fresh interpreter."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias

from config.logs import print_traceback, show_handlers_safely
from services.common.process_tree import show_as
from services.common.project_imports import CHECKOUT
from services.executor.messages import ExecuteRun, FinalizeRun, Instruction, ObserveRun, ProcessFailed, RunFinished
from services.executor.pipes import write
from services.executor.pool.run_process import RunProcess, command, fork

if TYPE_CHECKING:
    from services.executor.process.flow_run_process import Prepared

_LONGEST_WHY: Final = 2000
"""Limit in characters, so that a report fits into one atomic write to a pipe."""
_FAILED: Final = 70
_DOES: Final[Mapping[type, str]] = {ExecuteRun: "run", FinalizeRun: "finalizer of", ObserveRun: "observer of"}


Start: TypeAlias = Callable[[Instruction], RunProcess]
"""Starts a process that carries the instruction out and ends."""


def fork_to_carry_out(
    instruction: Instruction,
    *,
    environment: Mapping[str, str],
    shelf: Path,
    prepared: Prepared,
    forget: Callable[[], None],
) -> RunProcess:
    """Fork a process within milliseconds, with everything imported.

    ``forget`` closes the descriptors of the process that forks, in the fork.
    """
    entry = partial(carry_out, instruction, environment=environment, shelf=shelf, prepared=prepared)
    return fork(instruction.run_id, entry, forget=forget)


def carry_out(
    instruction: Instruction,
    reports: int,
    orders: int,
    *,
    environment: Mapping[str, str],
    shelf: Path,
    prepared: Prepared | None = None,
) -> NoReturn:
    """Carry the instruction out in this process and end it; exit code 0 when it was done.

    Reports are written to the descriptor ``reports``; what an `ExecuteRun` is to do is read from ``orders``.
    """
    from services.executor.process.flow_loading import describe_failure
    from services.executor.process.flow_run_process import FreshInterpreterNeeded, Prepared, finish, is_unreachable

    code = _FAILED
    show_as(f"{_DOES[type(instruction)]} {instruction.run_id[:8]}")
    show_handlers_safely()
    try:
        match instruction:
            case ExecuteRun():
                prepared = prepared or Prepared(environment)
                _execute(instruction, reports, orders, environment=environment, shelf=shelf, prepared=prepared)
            case FinalizeRun():
                from services.executor.finalizing.finalizer import Finalizer

                Finalizer(instruction, environment=environment, shelf=shelf).run()
            case ObserveRun():
                _observe(instruction, reports)
        code = 0
    except FreshInterpreterNeeded as needed:
        _start_afresh(replace(needed.instruction, claimed=True), reports, orders, needed.environment, shelf)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException as error:  # noqa: BLE001 - the end of the process is the report
        # Nothing of Sluice is imported here: the flow's own packages may have its names by now.
        if isinstance(instruction, ExecuteRun):
            write(reports, ProcessFailed(describe_failure(error)[:_LONGEST_WHY], unreachable=is_unreachable(error)))
        print_traceback(error)
    finally:
        finish(code)
    os._exit(code)


def _observe(instruction: ObserveRun, reports: int) -> None:
    """Report what the run's process has to do because of the run's state in Prefect, if anything."""
    from services.executor.run_orders import read_order

    order = asyncio.run(read_order(instruction.run_id))
    if order is not None:
        write(reports, order)


def _start_afresh(
    instruction: ExecuteRun, reports: int, orders: int, environment: Mapping[str, str], shelf: Path
) -> NoReturn:
    """Replace this program by a fresh interpreter that carries the instruction out and has the same descriptors."""
    for descriptor in (reports, orders):
        os.set_inheritable(descriptor, True)
    os.chdir(CHECKOUT)
    os.execve(sys.executable, command(instruction, reports, orders, shelf), dict(environment))  # noqa: S606 - ours


def _execute(
    instruction: ExecuteRun,
    reports: int,
    orders: int,
    *,
    environment: Mapping[str, str],
    shelf: Path,
    prepared: Prepared,
) -> None:
    """Execute a run in this process, which was started for it, and report to the slot."""
    from services.executor.process.flow_run_process import FlowRunProcess, listen_for_orders
    from services.executor.process.suspension import Suspension

    report = partial(write, reports)
    suspension = Suspension(instruction.run_id)
    listen_for_orders(orders, report, suspension)
    FlowRunProcess(
        instruction, report, environment=environment, shelf=shelf, suspension=suspension, prepared=prepared
    ).run()
    report(RunFinished())
