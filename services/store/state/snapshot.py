"""A copy of all data of a Redis at one moment, as it would send it to a new replica."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from events.errors import TransientError
from services.store.connection import SyncRedis
from services.store.redis_errors import translated

if TYPE_CHECKING:
    import socket

_PIECE: Final = 1 << 20
_LONGEST_LINE: Final = 4096

PATIENCE_SECONDS: Final = 120.0
"""How long the server may be silent. While it writes its copy it sends a line feed every ten seconds."""


def copy_to(client: SyncRedis, file: Path) -> None:
    """Write the RDB of the server's state at one moment to the new ``file``, readable by its owner only.

    The server forks for it and continues. The file is synchronized to the disk. Raises `TransientError` if the server
    does not answer, or refuses it to this user (whose ACL needs ``+sync``).
    """
    with translated():
        connection: Any = client.connection_pool.make_connection()
        try:
            connection.connect()
            stream: socket.socket = connection._sock  # noqa: SLF001 - redis-py knows no reply of this form
            stream.settimeout(PATIENCE_SECONDS)
            connection.send_command("SYNC")
            size = _announced(stream)
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as output:
                for piece in _pieces(stream, size):
                    output.write(piece)
                output.flush()
                os.fsync(output.fileno())
        finally:
            connection.disconnect()


def _announced(stream: socket.socket) -> int:
    """Return the number of bytes that follow: the server sends ``$N``, after line feeds while it prepares them."""
    line = b""
    while not line.endswith(b"\n") or not line.strip():
        byte = stream.recv(1)
        if not byte:
            raise TransientError("Redis closed the connection instead of sending its state: its log says why")
        line = line.lstrip() + byte
        if len(line) > _LONGEST_LINE:
            break
    said = line.strip()
    if not said.startswith(b"$") or not said[1:].isdigit():
        raise TransientError(
            f"Redis does not send its state ({said[:200].decode(errors='replace')}): its user needs the right to SYNC "
            "(docs/backup.md), and hosted servers often refuse it to everybody: there, use the backup that they offer"
        )
    return int(said[1:])


def _pieces(stream: socket.socket, size: int) -> Iterator[bytes]:
    while size:
        piece = stream.recv(min(size, _PIECE))
        if not piece:
            raise TransientError(f"Redis closed the connection {size} bytes before the end of its state")
        size -= len(piece)
        yield piece
