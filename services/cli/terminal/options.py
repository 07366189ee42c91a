"""Options that several commands have, each with its help."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from services.cli.terminal.times import moment

AGE_OR_TIME: Final = "an age (15m, 2h, 7d) or an ISO 8601 time"
TIME: Final[dict[str, Any]] = {"parser": moment, "metavar": "TIME"}
"""Typer's settings of an option that takes an age or a time."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="Most entries to show.")]
Type = Annotated[str | None, typer.Option("--type", help="The type for plain JSON that is not a CloudEvent.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")]
Rate = Annotated[float, typer.Option(min=0.1, help="Most entries a second.")]
By = Annotated[str | None, typer.Option(help="Who answers; your login name by default.")]
Wait = Annotated[float, typer.Option(min=0, help="Seconds to wait for the outcome; 0: only send.")]
InputText = Annotated[
    str | None, typer.Option("--input", help="Input for the run: a JSON object, @FILE, or - for standard input.")
]
Since = Annotated[datetime | None, typer.Option("--since", help=f"Not before this time: {AGE_OR_TIME}.", **TIME)]
Event = Annotated[str | None, typer.Option(help="Only those that the event with this id led to.")]
HomeOption = Annotated[Path | None, typer.Option("--home", help="Folder of all state (SLUICE_HOME).")]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="Project file with sources and rules (SLUICE_CONFIG).")
]
