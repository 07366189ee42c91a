"""How flow runs are created and executed, in settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from config.settings_part import Positive, SettingsPart


class DispatcherSettings(SettingsPart):
    """How flow runs are created."""

    batch: Annotated[int, Field(ge=1, le=100)] = 100
    """Prefect accepts at most 100 runs a call."""
    calls: Annotated[int, Field(ge=1, le=16)] = 2
    """Number of deployments for which calls may be under way at once."""
    calls_per_deployment: Annotated[int, Field(ge=1, le=8)] = 1
    """Number of calls under way at once for one deployment: twice the number of Prefect API processes, where there are
    several. With more than one call, runs of different calls are created in no order."""
    backoff_seconds: Positive = 0.1
    """Before a failed run is tried again; doubled each time up to ``max_backoff_seconds``."""
    max_backoff_seconds: Positive = 30.0
    max_active_runs: Annotated[int, Field(ge=1)] | None = None
    """While so many runs that Sluice started are not over, events of all rules wait."""
    max_parameter_bytes: Annotated[int, Field(ge=1024)] = 512 * 1024
    """A run with larger parameters becomes a dead letter; Prefect's own default limit is the same."""
    circuit_events: Annotated[int, Field(ge=1, le=1000)] = 20
    """Of how many of a rule's last runs the share of failures is taken."""
    circuit_least: Annotated[int, Field(ge=1, le=1000)] = 10
    """How many of them must have failed for one reason before the rule holds its events."""
    circuit_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Which share of them must have failed for one reason."""
    longest_probe_seconds: Positive = 10.0
    """A rule that holds its events tries again at least this often."""


class ExecutorSettings(SettingsPart):
    """How flow runs of deployments without a work pool are executed."""

    name: str = "default"
    """Deployments pinned to this name run here; those pinned to none run on executors of the name ``default``."""
    slots: Annotated[int, Field(ge=1, le=256)] = 4
    """Runs that work at a time; a paused run that waits in its process is not among them."""
    waiting: Annotated[int, Field(ge=0, le=10_000)] = 100
    """Runs that may wait in their processes beside those; more of them hold slots."""
    mode: Literal["fork", "subprocess"] = "fork"
    python: Path | None = None
    """The virtual environment of the flows, or its interpreter, relative to the project file; unset: Sluice's own."""
    deployments: tuple[str, ...] = ()
    """Globs on ``flow/deployment``: what is executed beside the deployments that ``sluice deploy`` registered."""
    poll_seconds: Positive = 5.0
    """The safety net under the websocket."""
    grace_seconds: Positive = 5.0
    """How long a cancelled run, or one over its time limit, has between SIGTERM and SIGKILL."""
    stop_seconds: Annotated[float, Field(ge=0)] = 1.5
    """How long running flows may go on when the executor is stopped; what still runs is then handed back to Prefect."""
    lost_seconds: Annotated[float, Field(ge=5)] = 20.0
    """How long an executor may be silent before others take its runs for lost."""
    umask: Annotated[str, StringConstraints(pattern=r"^[0-7]{3}$")] = "077"
    """Of the flows' processes: which rights of others the files that they write are made without."""
    recheck_seconds: Positive = 2.0
    """How often the flow files are looked at for changes."""
