"""The `sluice` command of an installed wheel, where the service's packages lie in the folder ``_service`` beside this.

They are imported as `config`, `events` and `services`, names that a user's own project may have too: only this command
and the processes that it starts have the folder on their import path.
"""

from __future__ import annotations

import gc
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

DISTRIBUTION: Final = "sluice-events"
SERVICE: Final = Path(__file__).resolve().parent / "_service"
_NEEDED: Final = ("prefect", "typer", "rq", "structlog", "watchfiles")


def main() -> None:
    """Run the command; exit with 2 and one sentence where only the client library is installed."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"error: the sluice command needs the whole service, of which {', '.join(missing)} cannot be found: "
            f"python -m pip install '{DISTRIBUTION}[service]'\n"
        )
        sys.exit(2)
    sys.path.insert(0, str(SERVICE))
    gc.disable()
    from services.cli import main as run

    run()
