"""``python -m services.prefect_server ...``: ``prefect server start ...`` whose transactions queue up on SQLite.

Prefect begins a transaction on SQLite without taking the write lock, reads, and then writes. Where another transaction
has written in between, SQLite refuses at once with "database is locked", however long the busy time-out: callers get a
503, a bulk call loses what follows in it, and a transaction that is refused at a bad moment has been seen to keep the
write lock until the server is restarted. Here a transaction takes the lock as it begins, so it waits for its turn (for
up to Prefect's busy time-out of 60 s). Reads outside of transactions are not touched. Python's garbage collector, whose
passes over the server's hundreds of thousands of lasting objects take a fourteenth of its time, comes more seldom. With
PostgreSQL, start Prefect's own command instead.
"""

from __future__ import annotations

import importlib
import runpy
import sys
from contextlib import _AsyncGeneratorContextManager

from prefect.server.database.configurations import AioSqliteConfiguration
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

from services.garbage import search_seldom


def main() -> None:
    """Run ``prefect server start`` with this process's arguments, in this process."""
    begin = AioSqliteConfiguration.begin_transaction

    def begin_with_the_lock(
        self: AioSqliteConfiguration,
        session: AsyncSession,
        with_for_update: bool = True,  # noqa: ARG001 - Prefect's signature
    ) -> _AsyncGeneratorContextManager[AsyncSessionTransaction]:
        return begin(self, session, with_for_update=True)

    AioSqliteConfiguration.begin_transaction = begin_with_the_lock  # type: ignore[method-assign]
    importlib.import_module("prefect.server.api.server")
    search_seldom()
    sys.argv[1:1] = ["server", "start"]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
