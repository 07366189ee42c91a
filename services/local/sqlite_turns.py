"""What Prefect's server lacks on SQLite: writers that take turns, and connections that nothing is left open on.

SQLite refuses a transaction that has read and wants to write when another has written in between, at once and however
long the busy time-out: callers get a 503, a bulk call loses what follows in it. And it lets a writer that finds the
database locked sleep in its thread and look again after 1 to 100 ms, in no order, for up to a minute. Here every
transaction is one that writes from its beginning, and waits in asyncio until the one before it is done: first come,
first served, and the database is free when its turn comes. Reads outside of transactions are not touched.

A statement that SQLite refuses (an answer that is there already, say) leaves a cursor to Python's garbage collector.
That resets it in whichever thread searches for garbage just then: where it is the event loop's, and the cursor's
connection sleeps in another statement, the whole server sleeps with it, and with it whoever holds the lock: for the
minute of the busy time-out, again and again. Here the cursor is closed at once, in its connection's own thread.

The connection with which Prefect has migrated its database comes back into its pool in a mode in which a statement
outside of a transaction leaves one open, and the database locked, until the session is closed. That mode is taken back.

Prefect's search of logs calls SQL's ``concat``, which SQLite has from 3.44 on. An older one is given it.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final
from weakref import WeakKeyDictionary

import aiosqlite
from prefect.server.database.configurations import AioSqliteConfiguration
from sqlalchemy import event
from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_connection
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction
from sqlalchemy.pool import Pool
from sqlalchemy.util import await_only

LONGEST_TURN_SECONDS: Final = 60.0
"""So long a writer waits for its turn before it is told that the database is locked: Prefect's own busy time-out."""

HAS_CONCAT: Final = (3, 44)
"""The first version of SQLite with the function ``concat``."""

_WRITES: Final = re.compile(r"(?is)\s*(INSERT|UPDATE|DELETE|REPLACE|WITH\b.*\b(INSERT|UPDATE|DELETE)\b)")


class _Turn:
    """The right to write, of one event loop's tasks."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._holder: asyncio.Task[Any] | None = None

    def is_mine(self) -> bool:
        return self._holder is not None and self._holder is asyncio.current_task()

    async def take(self) -> None:
        """Raises `sqlalchemy.exc.OperationalError` as a busy database does, when others write for a minute."""
        if self._lock.locked():
            try:
                async with asyncio.timeout(LONGEST_TURN_SECONDS):
                    await self._lock.acquire()
            except TimeoutError:
                raise OperationalError(
                    "BEGIN IMMEDIATE", None, sqlite3.OperationalError("database is locked")
                ) from None
        else:
            await self._lock.acquire()
        self._holder = asyncio.current_task()

    def pass_on(self) -> None:
        self._holder = None
        self._lock.release()


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turn] = WeakKeyDictionary()


def install() -> None:
    """Set up every SQLite engine of this process so; once, before the server starts."""
    AioSqliteConfiguration.begin_transaction = _in_turn(AioSqliteConfiguration.begin_transaction)  # type: ignore[assignment,method-assign]
    event.listen(Engine, "do_execute", _alone("do_execute"))
    event.listen(Engine, "do_executemany", _alone("do_executemany"))
    event.listen(Pool, "checkout", _without_implicit_transactions)
    if sqlite3.sqlite_version_info < HAS_CONCAT:
        event.listen(Pool, "connect", _with_concat)
    aiosqlite.Cursor._execute = _closing(aiosqlite.Cursor._execute)  # type: ignore[method-assign] # noqa: SLF001


def _turn() -> _Turn:
    return _turns.setdefault(asyncio.get_running_loop(), _Turn())


_Begin = Callable[..., AbstractAsyncContextManager[AsyncSessionTransaction]]


def _in_turn(begin: _Begin) -> _Begin:
    """Return Prefect's ``begin_transaction`` with the turn taken before and passed on after each transaction.

    Every transaction begins as a writing one: one that begins by reading fails with "database is locked" when it writes
    after another has.
    """

    @asynccontextmanager
    async def begin_in_turn(
        self: AioSqliteConfiguration,
        session: AsyncSession,
        with_for_update: bool = True,  # noqa: ARG001 - Prefect's signature
    ) -> AsyncGenerator[AsyncSessionTransaction, None]:
        turn = _turn()
        mine = turn.is_mine()
        if not mine:
            await turn.take()
        try:
            async with begin(self, session, with_for_update=True) as transaction:
                yield transaction
        finally:
            if not mine:
                turn.pass_on()

    return begin_in_turn


def _alone(name: str) -> Callable[[Any, str, Any, Any], bool]:
    """A statement that writes outside of a transaction, as Prefect stores events, is one by itself."""

    def execute(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        if context.dialect.driver != "aiosqlite" or not _WRITES.match(statement):
            return False
        turn = _turn()
        if turn.is_mine():
            return False
        await_only(turn.take())
        try:
            getattr(context.dialect, name)(cursor, statement, parameters, context)
        finally:
            turn.pass_on()
        return True

    return execute


def _without_implicit_transactions(connection: Any, _record: Any, _proxy: Any) -> None:
    if isinstance(connection, AsyncAdapt_aiosqlite_connection) and connection.isolation_level is not None:
        connection.isolation_level = None


def _with_concat(connection: Any, _record: Any) -> None:
    if isinstance(connection, AsyncAdapt_aiosqlite_connection):
        connection.create_function("concat", -1, _concat, deterministic=True)


def _concat(*parts: Any) -> str:
    return "".join(str(part) for part in parts if part is not None)


def _closing(execute: Callable[..., Any]) -> Callable[..., Any]:
    """Return aiosqlite's ``execute`` with the cursor closed after an error, in the connection's own thread."""

    async def execute_or_close(self: aiosqlite.Cursor, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return await execute(self, fn, *args, **kwargs)
        except BaseException:
            self._conn._tx.put_nowait((None, self._cursor.close))  # noqa: SLF001 - its thread's queue, behind what it does
            raise

    return execute_or_close
