"""What Sluice knows of its events, queues and dead letters, asked by its own command: ``sluice … --json``."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from sluice import visible

SECONDS: Final = 60


def ask_sluice(*arguments: str) -> Any:
    """What ``sluice`` with these arguments and ``--json`` says of the installation that this run belongs to.

    Raises `RuntimeError` with the command's own sentence when it has no answer.
    """
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    command = shutil.which("sluice", path=places)
    if command is None:
        raise RuntimeError("there is no `sluice` command beside this Python, nor on the PATH")
    answer = subprocess.run(  # noqa: S603 - Sluice's own command
        [command, *arguments, "--json"], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    try:
        return json.loads(answer.stdout)
    except ValueError:
        said = (answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"])[-1]
        with contextlib.suppress(ValueError, TypeError, KeyError):  # else the words of an interpreter that broke
            said = json.loads(said)["message"]
        raise RuntimeError(visible(f"sluice {' '.join(arguments)}: {said}", 500)) from None
