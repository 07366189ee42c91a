"""How slots start processes: as forks of themselves, or as fresh interpreters."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from config.logs import print_traceback, show_handlers_safely
from services.executor.pipes import Message, write
from services.executor.pool.run_process import RunProcess, command, fork, spawn
from services.executor.process.process_setup import CHECKOUT

if TYPE_CHECKING:
    from services.executor.process.flow_run_process import Prepared

_LONGEST_WHY: Final = 2000
"""Limit in characters, so that a report fits into one atomic write to a pipe."""


class ForkStarter:
    """Starts run processes within milliseconds, with everything imported."""

    def __init__(self, *, name: str, environment: Mapping[str, str], shelf: Path) -> None:
        from services.executor.process.flow_run_process import Prepared

        self._name = name
        self._environment = environment
        self._shelf = shelf
        self._prepared = Prepared(environment)

    def start_run(
        self, run_id: str, *, queued: Message | None, remembered: Message | None, forget: Callable[[], None]
    ) -> RunProcess:
        """Fork a process that executes the run."""
        return fork(run_id, partial(self._be_flow_run, queued, remembered), forget=forget)

    def finalizer(self, run_id: str, ending: str, message: str, *, forget: Callable[[], None]) -> RunProcess:
        """Fork the run's finalizer."""

        def entry(_run_id: str, _reports: int, _intents: int) -> NoReturn:
            be_finalizer(run_id, ending, message, environment=self._environment, shelf=self._shelf)

        return fork(run_id, entry, forget=forget)

    def observer(self, run_id: str, *, forget: Callable[[], None]) -> RunProcess:
        """Fork a process that reads the run's state once."""

        def entry(_run_id: str, reports: int, _intents: int) -> NoReturn:
            be_observer(run_id, reports)

        return fork(run_id, entry, forget=forget)

    def _be_flow_run(
        self, queued: Message | None, remembered: Message | None, run_id: str, reports: int, intents: int
    ) -> NoReturn:
        be_flow_run(
            run_id,
            reports,
            intents,
            name=self._name,
            environment=self._environment,
            shelf=self._shelf,
            prepared=self._prepared,
            remembered=remembered,
            queued=queued,
        )


class SpawnStarter:
    """Starts run processes as fresh interpreters: slower by the time that importing Prefect takes."""

    def __init__(self, *, name: str, environment: Mapping[str, str], shelf: Path, watched: bool = True) -> None:
        self._name = name
        self._watched = {} if watched else {"alone": "yes"}
        self._environment = environment
        self._shelf = shelf

    def start_run(
        self, run_id: str, *, queued: Message | None, remembered: Message | None, forget: Callable[[], None]
    ) -> RunProcess:
        """Start an interpreter that executes the run, and asks for the server's options itself."""
        del remembered, forget  # descriptors are not inherited
        options = {"name": self._name, "shelf": self._shelf, "queued": json.dumps(queued), **self._watched}
        return spawn(run_id, options, env=self._environment)

    def finalizer(self, run_id: str, ending: str, message: str, *, forget: Callable[[], None]) -> RunProcess:
        """Start an interpreter as the run's finalizer."""
        del forget
        return spawn(run_id, {"ending": ending, "message": message, "shelf": self._shelf}, env=self._environment)

    def observer(self, run_id: str, *, forget: Callable[[], None]) -> RunProcess:
        """Start an interpreter that reads the run's state once."""
        del forget
        return spawn(run_id, {"observe": "yes", "shelf": self._shelf}, env=self._environment)


def be_flow_run(
    run_id: str,
    reports: int,
    intents: int,
    *,
    name: str,
    environment: Mapping[str, str],
    shelf: Path,
    prepared: Prepared | None = None,
    claimed: bool = False,
    watched: bool = True,
    remembered: Message | None = None,
    queued: Message | None = None,
) -> NoReturn:
    """Execute the run and end this process; ``watched``: an executor reports suspensions from outside."""
    from services.executor.process.flow_loading import describe_failure
    from services.executor.process.flow_run_process import FlowRunProcess, Queued, finish, listen_for_intent
    from services.executor.process.server_options_cache import ServerOptionsCache
    from services.executor.process.suspension import Suspension

    def report(**message: object) -> None:
        write(reports, message)

    def restart(changed: Mapping[str, str]) -> None:
        for descriptor in (reports, intents):
            os.set_inheritable(descriptor, True)
        options = {"name": name, "shelf": shelf, "claimed": "yes"}
        os.chdir(CHECKOUT)
        os.execve(sys.executable, command(run_id, reports, intents, options), dict(changed))  # noqa: S606 - ours

    code = 70
    show_handlers_safely()
    try:
        suspension = Suspension(run_id)
        listen_for_intent(intents, report, suspension)
        code = FlowRunProcess(
            run_id=run_id,
            claimed_by=f"{name}, process {os.getpid()}",
            report=report,
            environment=environment,
            shelf=shelf,
            prepared=prepared,
            restart=restart if prepared is not None else None,
            claimed=claimed,
            suspension=suspension if watched else None,
            remembered=ServerOptionsCache.of(remembered) if remembered is not None else None,
            queued=Queued(**queued) if queued is not None else None,
        ).run()
        if code == 0:
            report(step="finished")
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 1
    except BaseException as error:  # noqa: BLE001 - the end of the process is the report
        print_traceback(error)
        report(step="failed", why=describe_failure(error)[:_LONGEST_WHY])
    finally:
        finish(code)
    os._exit(code)


def be_observer(run_id: str, reports: int) -> NoReturn:
    """Report the order to the run's slot, if any, and end this process; exit code 0 when Prefect was reached."""
    from services.executor.finalizing.run_observer import observe
    from services.executor.process.flow_run_process import finish

    code = 1
    try:
        order = observe(run_id)
        if order is not None:
            write(reports, {"step": "order", **order})
        code = 0
    except Exception as error:  # noqa: BLE001 - Prefect is out of reach: the next look may tell
        print_traceback(error)
    finally:
        finish(code)
    os._exit(code)


def be_finalizer(run_id: str, ending: str, message: str, *, environment: Mapping[str, str], shelf: Path) -> NoReturn:
    """Finalize the run and end this process; exit code 0 when Prefect has the state."""
    from services.executor.end_reason import EndReason
    from services.executor.finalizing.finalizer import Finalizer
    from services.executor.process.flow_run_process import finish

    code = 1
    show_handlers_safely()
    try:
        Finalizer(run_id=run_id, ending=EndReason(ending), message=message, environment=environment, shelf=shelf).run()
        code = 0
    except BaseException as error:  # noqa: BLE001 - the end of the process is the report
        print_traceback(error)
    finally:
        finish(code)
    os._exit(code)
