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
import asyncio
import gc
import json
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from services.common.request_guard import App

_PREPARING: Final = 0x73_6C_75_69_63_65
"""Number of the advisory lock of PostgreSQL under which one server prepares the database."""
_ASK_SECONDS: Final = 0.5


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
    settings = get_current_settings()
    database = os.environ.get("PREFECT_API_DATABASE_CONNECTION_URL", "")
    if database.startswith("sqlite"):
        from services.local.sqlite_turns import install

        install()
    elif database.startswith("postgresql") and settings.server.database.migrate_on_start:
        asyncio.run(_prepare_alone())
    from prefect.server.api.server import create_app

    _look_seldom()

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


async def _prepare_alone() -> None:
    """Migrate the database and register block types while no other server does.

    Of several servers that start on an empty database, all but one would fail. The lock is asked for again and again,
    because Prefect's migrations build indexes concurrently: that waits for every statement that has begun before, such
    as one that waits for the lock.
    """
    from prefect.server.database import provide_database_interface
    from prefect.server.models.block_registration import run_block_auto_registration
    from prefect.settings import PREFECT_API_BLOCKS_REGISTER_ON_START
    from sqlalchemy import text

    database = provide_database_interface()
    engine = await database.engine()
    async with engine.connect() as connection:
        alone = await connection.execution_options(isolation_level="AUTOCOMMIT")
        while not await alone.scalar(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": _PREPARING}):  # noqa: ASYNC110
            await asyncio.sleep(_ASK_SECONDS)
        try:
            await database.create_db()
            if PREFECT_API_BLOCKS_REGISTER_ON_START.value():
                async with await database.session() as session:
                    await run_block_auto_registration(session=session)
        finally:
            await alone.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _PREPARING})
    await engine.dispose()


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
