"""The messages between the executor's processes; `services.executor.pipes` sends them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeAlias

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


# From the role's process to a fork server or a slot.


@dataclass(frozen=True, slots=True)
class Assignment:
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


@dataclass(frozen=True, slots=True)
class Stop:
    """End; a slot ends after its present run."""


@dataclass(frozen=True, slots=True)
class StartSlot:
    """Fork a slot."""

    number: int


@dataclass(frozen=True, slots=True)
class ProbeFlows:
    """Import the flow files and report the findings."""

    sources: tuple[FlowSource, ...]


@dataclass(frozen=True, slots=True)
class FinalizeRun:
    """Finalize the run, in a process that may run the flow's hooks."""

    run_id: str
    end: RunEnd


@dataclass(frozen=True, slots=True)
class CancelRun:
    """Cancel the run."""

    run_id: str


@dataclass(frozen=True, slots=True)
class SuspendRun:
    """The run was suspended from outside: its engine is to stop at its next step."""

    run_id: str
    state_id: str
    occurred: datetime


@dataclass(frozen=True, slots=True)
class RunOvertaken:
    """Somebody set the run to a state in which it has no process, or deleted it (no state)."""

    run_id: str
    state_id: str | None
    occurred: datetime
    why: str
    intent: Intent


@dataclass(frozen=True, slots=True)
class HandBack:
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


@dataclass(frozen=True, slots=True)
class ExecuteRun:
    """Claim and execute the run."""

    run_id: str
    instance: str
    queued: Queued | None = None
    options: ServerOptions | None = None
    claimed: bool = False
    """Whether the process has claimed the run before it was replaced by a fresh interpreter."""
    watched: bool = True
    """Whether an executor reports suspensions from outside."""


@dataclass(frozen=True, slots=True)
class ObserveRun:
    """Read the run's state once, and send the slot the order that follows from it, if any."""

    run_id: str


# From a fork server to the role's process.


@dataclass(frozen=True, slots=True)
class ForkServerReady:
    """The fork server has imported its libraries and can fork slots."""

    generation: int
    libraries: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImportFindings:
    """The result of importing one flow: the problem if it failed, the project's files and the libraries it imported."""

    source: FlowSource
    problem: str | None
    files: tuple[str, ...]
    libraries: tuple[str, ...]
    seconds: float = 0.0
    """Duration of the import here, where preloaded libraries cost nothing."""


@dataclass(frozen=True, slots=True)
class ThreadStarters:
    """Within a fork server: the packages whose import starts a thread, which a process that forks must not have."""

    packages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunFinalized:
    """The finalizer has ended; ``ok``: Prefect has the run's state."""

    run_id: str
    ok: bool


@dataclass(frozen=True, slots=True)
class SlotEnded:
    """The process of a slot has ended, with this wait status."""

    number: int
    generation: int
    status: int


# From a slot to the role's process.


@dataclass(frozen=True, slots=True)
class SlotReady:
    """The slot takes runs from now on; ``client`` is its connection's id in Redis."""

    number: int
    generation: int
    pid: int
    client: int


@dataclass(frozen=True, slots=True)
class RunBegan:
    """The slot executes a run; moments are seconds since the epoch."""

    run_id: str
    pid: int
    at: float
    queued: float
    """When the run was put on the queue."""


@dataclass(frozen=True, slots=True)
class SlotIdle:
    """The slot's run has left it."""

    run_id: str
    state_id: str
    early_until: float | None = None
    """When the run is due, in seconds since the epoch, if it was taken before its time."""


# From a run process to its slot. The slot forwards the last three to the role's process.


@dataclass(frozen=True, slots=True)
class RunClaimed:
    """The process has claimed the run, in a state of that moment on Prefect's clock."""

    at: float
    since: datetime


@dataclass(frozen=True, slots=True)
class NotClaimed:
    """The run was not claimed: it is not, or no longer, for this process, or not yet (``until``, since the epoch)."""

    why: str
    until: float | None = None


@dataclass(frozen=True, slots=True)
class RunRefused:
    """The run was claimed and ended before its flow began."""

    why: str


@dataclass(frozen=True, slots=True)
class RunLimits:
    """The limits of the run's deployment; None is without limit."""

    memory_mb: float | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class RunFinished:
    """Prefect has the run's final state."""


@dataclass(frozen=True, slots=True)
class ProcessFailed:
    """The process could not execute the run."""

    why: str


@dataclass(frozen=True, slots=True)
class TakeIntent:
    """To a run process: the meaning of the SIGTERM that follows. The process returns it once it has noted it."""

    intent: Intent


@dataclass(frozen=True, slots=True)
class SettingState:
    """The process is about to set the run's state."""


@dataclass(frozen=True, slots=True)
class StateSet:
    """The response: the state that the run has now, None if there was no response."""

    state_id: str | None


@dataclass(frozen=True, slots=True)
class FlowStarted:
    """The flow is loaded and begins to run."""

    at: float


@dataclass(frozen=True, slots=True)
class RunPaused:
    """The run, or one of its subflow runs, is paused."""


@dataclass(frozen=True, slots=True)
class RunWorks:
    """Neither the run nor one of its subflow runs is paused any more."""


@dataclass(frozen=True, slots=True)
class ForkedPid:
    """From the process template to the role's process: the fork server that it was asked to fork."""

    pid: int


Order: TypeAlias = CancelRun | SuspendRun | RunOvertaken
"""What a slot does with its run because of the run's state in Prefect."""

Instruction: TypeAlias = ExecuteRun | FinalizeRun | ObserveRun

Message: TypeAlias = (
    Assignment | Stop | StartSlot | ProbeFlows | Instruction | ServerOptions | Order | HandBack
    | ForkServerReady | ImportFindings | ThreadStarters | RunFinalized | SlotEnded | SlotReady | RunBegan | SlotIdle
    | RunClaimed | NotClaimed | RunRefused | RunLimits | RunFinished | ProcessFailed | TakeIntent | SettingState
    | StateSet | FlowStarted | RunPaused | RunWorks | ForkedPid
)  # fmt: skip
