"""``python -m services.local.prefect_server OPTIONS --host HOST --port PORT``: Prefect's server.

It runs what ``prefect server start`` runs, without that command's imports. On SQLite, many concurrent callers would
block it; `services.local.sqlite_turns` prevents that, unless ``PREFECT_API_DATABASE_CONNECTION_URL`` names another
database or is not set. Python's garbage collector, whose passes over the server's hundreds of thousands of lasting
objects take a fourteenth of its time, runs less often. `services.common.request_guard` and `services.local.ui_login`
protect it from other pages in a browser.

OPTIONS is a JSON object: ``allowed_hosts``; ``tickets``, the folder of the UI's; ``services``, false for an API process
beside others, whose background services `prefect server services start` runs.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.common.request_guard import App


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser()
    parser.add_argument("options", type=json.loads)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", required=True, type=int)
    given = parser.parse_args()
    gc.disable()  # until all is loaded: collection takes a sixth of that time
    import uvicorn
    from prefect.context import refresh_global_settings_context
    from prefect.settings import get_current_settings

    from services.common.garbage_collection import search_seldom

    refresh_global_settings_context()  # a fork of the start template has imported Prefect with the roles' settings
    if os.environ.get("PREFECT_API_DATABASE_CONNECTION_URL", "").startswith("sqlite"):
        from services.local.sqlite_turns import install

        install()
    from prefect.server.api.server import create_app

    _look_seldom()

    settings = get_current_settings()
    gc.freeze()  # `create_app` collects, whatever is set
    app = create_app(final=True, webserver_only=not given.options.get("services", True))
    search_seldom()
    uvicorn.run(
        _guarded(app, given.options["tickets"], given.options["allowed_hosts"]),
        host=given.host,
        port=given.port,
        timeout_keep_alive=settings.server.api.keepalive_timeout,
        ws_ping_interval=settings.server.api.websocket_ping_interval,
        ws_ping_timeout=settings.server.api.websocket_ping_timeout,
        log_level=settings.server.logging_level.lower(),
    )


def _look_seldom() -> None:
    """Have the server poll the schedule of its own services once a second instead of four times.

    Immediate work wakes it; the services themselves run at most every 5 seconds. Nobody looks ten times a second, in a
    thread, whether one of them is cancelled: Prefect (3.8.8, 3.9.1) cancels none. What is overridden for that is
    private to docket (0.27.0): tests/unit/services/local/test_prefect_server.py fails first where it has changed.
    """
    from functools import partial

    from docket import Worker
    from prefect.server.api import background_workers

    class SeldomWorker(Worker):
        async def _cancellation_listener(self) -> None:
            session = self._processing_session
            if session is not None:
                session.cancellation_ready.set()
                await session.stopping.wait()

    pause = timedelta(seconds=1)
    seldom = partial(SeldomWorker, minimum_check_interval=pause, scheduling_resolution=pause)
    background_workers.Worker = seldom  # type: ignore[assignment,attr-defined]


def _guarded(app: App, tickets: str | None, allowed_hosts: Sequence[str]) -> App:
    """Return Prefect's application behind ours; Prefect's own internal requests bypass them."""
    from services.common.lingering_close import LingeringClose
    from services.common.request_guard import RequestGuard
    from services.home.tickets import Tickets
    from services.local.ui_login import UiLogin

    auth_string = os.environ.get("PREFECT_SERVER_API_AUTH_STRING")
    login = UiLogin(app, tickets=Tickets(Path(tickets)) if tickets else None, auth_string=auth_string)
    return LingeringClose(RequestGuard(login, names=allowed_hosts))


if __name__ == "__main__":
    main()
