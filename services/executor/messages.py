"""The messages between the executor's processes; `services.executor.pipes` sends them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeAlias, dataclass_transform

from config.settings import LogSettings, RedisSettings
from services.executor.process_exits import RunEnd
from services.prefect_api.server_options import ServerOptions

Intent: TypeAlias = Literal["cancel", "reschedule"]
"""What the SIGTERM that follows means to a run process."""


@dataclass(frozen=True, slots=True, order=True)
class FlowSource:
    """A deployment's flow: an entrypoint relative to a folder."""

    path: str
    entrypoint: str

    @property
    def file(self) -> str:
        """The flow's file."""
        return str(Path(self.path, self.entrypoint.rpartition(":")[0] or self.entrypoint))

    def __str__(self) -> str:
        return f"{self.path}/{self.entrypoint}"


@dataclass_transform(frozen_default=True)
class ProcessMessage:
    """Base of the messages: each is a frozen dataclass, and is sent under the name of its class."""

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True)(cls)


# From the role's process to a fork server or a slot.


class Assignment(ProcessMessage):
    """What a fork server, its slots and their run processes need to know; its first message."""

    instance: str
    """Name of the executor's instance; ``executor`` is the name in the settings, which instances share."""
    executor: str
    queues: tuple[str, ...]
    mode: Literal["fork", "subprocess"]
    grace_seconds: float
    lost_seconds: float
    redis_url: str
    redis: RedisSettings
    log: LogSettings
    environment: Mapping[str, str]
    """The environment of the run processes."""
    shelf: Path
    """Folder in which a run process finds a link to the package `sluice` and to nothing else of Sluice."""
    sources: tuple[FlowSource, ...] = ()
    """The flows whose libraries are to be preloaded."""
    generation: int = 0
    socket: str = ""
    """Path of the Unix socket on which the role's process listens."""


class Stop(ProcessMessage):
    """End; a slot ends after its present run."""


class StartSlot(ProcessMessage):
    """Fork a slot."""

    number: int


class ProbeFlows(ProcessMessage):
    """Import the flow files and report the findings."""

    sources: tuple[FlowSource, ...]


class FinalizeRun(ProcessMessage):
    """Finalize the run, in a process that may run the flow's hooks; if it starts again, ``after_seconds`` from then."""

    run_id: str
    end: RunEnd
    after_seconds: float = 0.0


class CancelRun(ProcessMessage):
    """Cancel the run."""

    run_id: str


class SuspendRun(ProcessMessage):
    """The run was suspended from outside: its engine is to stop at its next step."""

    run_id: str
    state_id: str
    occurred: datetime


class RunOvertaken(ProcessMessage):
    """Somebody else set the run to a state in which it must have no process, or deleted it (then without a state)."""

    run_id: str
    state_id: str | None
    occurred: datetime
    why: str
    intent: Intent


class OptionsRead(ProcessMessage):
    """The options of the Prefect server that a run process need not ask for."""

    options: ServerOptions


class CutOff(ProcessMessage):
    """Neither Redis nor Prefect is reached: a run that another executor starts again has ``seconds`` to end."""

    seconds: float


class HandBack(ProcessMessage):
    """Hand the present run back and end; its process has ``seconds`` to end before it is killed."""

    seconds: float


# From a slot or fork server to a process of its own for one run: its instruction.


@dataclass(frozen=True, slots=True)
class Queued:
    """The scheduled state for which a run was put on the queue, and when (seconds since the epoch)."""

    state_id: str
    at: float
    free: bool = True
    """Whether only this process has the run: else an earlier process of the run has not ended yet."""


class ExecuteRun(ProcessMessage):
    """Claim and execute the run."""

    run_id: str
    instance: str
    queued: Queued | None = None
    options: ServerOptions | None = None
    claimed: bool = False
    """Whether the process has claimed the run before it was replaced by a fresh interpreter."""
    watched: bool = True
    """Whether an executor reports suspensions from outside."""


class ObserveRun(ProcessMessage):
    """Read the run's state once, and send the slot the order that follows from it, if any."""

    run_id: str


# From a fork server to the role's process.


class ForkServerReady(ProcessMessage):
    """The fork server has imported its libraries and can fork slots."""

    generation: int
    libraries: tuple[str, ...]


class ImportFindings(ProcessMessage):
    """The result of importing one flow: the problem if it failed, the project's files and the libraries it imported."""

    source: FlowSource
    problem: str | None
    files: tuple[str, ...]
    libraries: tuple[str, ...]
    seconds: float = 0.0
    """Duration of the import here, where preloaded libraries cost nothing."""


class ThreadStarters(ProcessMessage):
    """Within a fork server: the packages whose import starts a thread, which a process that forks must not have."""

    packages: tuple[str, ...]


class RunFinalized(ProcessMessage):
    """The finalizer has ended; ``ok``: Prefect has the run's state."""

    run_id: str
    ok: bool


class SlotEnded(ProcessMessage):
    """The process of a slot has ended, with this wait status."""

    number: int
    generation: int
    status: int


# From a slot to the role's process.


class SlotReady(ProcessMessage):
    """The slot takes runs from now on; ``client`` is its connection's id in Redis."""

    number: int
    generation: int
    pid: int
    client: int


class RunBegan(ProcessMessage):
    """The slot executes a run; moments are seconds since the epoch."""

    run_id: str
    pid: int
    at: float
    queued: float
    """When the run was put on the queue."""


class SlotIdle(ProcessMessage):
    """The slot's run has left it."""

    run_id: str
    state_id: str
    early_until: float | None = None
    """When the run is due, in seconds since the epoch, if it was taken before its time."""


# From a run process to its slot. The slot forwards `FlowStarted` and `RunPaused` to the role's process.


class RunClaimed(ProcessMessage):
    """The process has claimed the run, in a state of that moment on Prefect's clock."""

    at: float
    since: datetime


class NotClaimed(ProcessMessage):
    """The run was not claimed: it is not, or no longer, for this process, or not yet (``until``, since the epoch)."""

    why: str
    until: float | None = None


class RunRefused(ProcessMessage):
    """The run was claimed and ended before its flow began."""

    why: str


class RunLimits(ProcessMessage):
    """The limits of the run's deployment; None is without limit. ``restarts``: it starts again when it is lost."""

    memory_mb: float | None
    seconds: float | None
    restarts: bool = False


class RunFinished(ProcessMessage):
    """Prefect has the run's final state."""


class ProcessFailed(ProcessMessage):
    """The process could not execute the run; ``unreachable``: Prefect gave no answer, or one of its own failure."""

    why: str
    unreachable: bool = False


class TakeIntent(ProcessMessage):
    """To a run process: the meaning of the SIGTERM that follows. The process returns it once it has noted it."""

    intent: Intent


class SettingState(ProcessMessage):
    """The process is about to set the run's state."""


class StateSet(ProcessMessage):
    """The response: the state that the run has now, None if there was no response."""

    state_id: str | None


class FlowStarted(ProcessMessage):
    """The flow is loaded and begins to run."""

    at: float


class RunPaused(ProcessMessage):
    """Whether the run, or one of its subflow runs, is paused now, after a change of that."""

    paused: bool


class ForkedPid(ProcessMessage):
    """From the process template to the role's process: the fork server that it was asked to fork."""

    pid: int


Order: TypeAlias = CancelRun | SuspendRun | RunOvertaken
"""What a slot does with its run because of the run's state in Prefect."""

Instruction: TypeAlias = ExecuteRun | FinalizeRun | ObserveRun
