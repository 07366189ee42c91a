"""``python -m services.local.prefect_server OPTIONS``: ``prefect server start``, fit for SQLite and for browsers.

On SQLite many callers at a time would stop it, see `services.local.sqlite_turns`, which is left out where
``PREFECT_API_DATABASE_CONNECTION_URL`` names another database or is not set. Python's garbage collector, whose passes
over the server's hundreds of thousands of lasting objects take a fourteenth of its time, comes more seldom. A browser
has other people's pages in it: see `services.common.request_guard` and `services.local.ui_login`.

OPTIONS is a JSON object: ``allowed_hosts``, and ``tickets``, the folder of the UI's.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn

from services.common.garbage_collection import search_seldom
from services.common.lingering_close import LingeringClose
from services.common.request_guard import App, RequestGuard
from services.home.tickets import Tickets
from services.local.sqlite_turns import install
from services.local.ui_login import UiLogin


def main() -> None:
    """Run ``prefect server start`` with this process's other arguments, in this process."""
    options = json.loads(sys.argv.pop(1))
    if os.environ.get("PREFECT_API_DATABASE_CONNECTION_URL", "").startswith("sqlite"):
        install()
    importlib.import_module("prefect.server.api.server")
    uvicorn.run = _guarding(uvicorn.run, options)
    search_seldom()
    sys.argv[1:1] = ["server", "start"]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


def _guarding(serve: Callable[..., None], options: dict[str, Any]) -> Callable[..., None]:
    """``uvicorn.run`` with our applications before Prefect's; what Prefect asks of itself does not come through it."""
    tickets = Tickets(Path(options["tickets"])) if options["tickets"] else None

    def run(app: App, **how: Any) -> None:
        login = UiLogin(app, tickets=tickets, auth_string=os.environ.get("PREFECT_SERVER_API_AUTH_STRING"))
        serve(LingeringClose(RequestGuard(login, names=options["allowed_hosts"])), **how)

    return run


if __name__ == "__main__":
    main()
