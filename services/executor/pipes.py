"""JSON lines between the executor's processes: over pipes within a slot, over a Unix socket to the role's process."""

from __future__ import annotations

import json
import os
import select
import socket
from typing import Any, Final, TypeAlias

Message: TypeAlias = dict[str, Any]

_CHUNK: Final = 65_536


class PipeLines:
    """Splits what arrives on a file descriptor into messages."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.ended = False
        self._rest = b""

    def read(self) -> list[Message]:
        """Return the messages that have arrived; blocks only if the descriptor does. Sets ``ended`` at the end."""
        try:
            chunk = os.read(self.descriptor, _CHUNK)
        except BlockingIOError:
            return []
        except OSError:
            chunk = b""
        if not chunk:
            self.ended = True
            return []
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [json.loads(line) for line in lines]


def write(descriptor: int, message: Message) -> None:
    """Write one message; short ones (under a pipe's 4096 bytes) arrive whole even with several writers."""
    os.write(descriptor, json.dumps(message).encode() + b"\n")


class Link:
    """A slot's or fork server's connection to the role's process; its loss sets `alive` to false and raises nothing."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._lines: PipeLines | None = None

    @property
    def alive(self) -> bool:
        """Whether the role's process was connected at the last send or receive."""
        return self._socket is not None

    def connect(self) -> bool:
        """Try once to connect to the role's process."""
        self.close()
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.connect(self._path)
        except OSError:
            link.close()
            return False
        self._socket = link
        self._lines = PipeLines(link.fileno())
        return True

    def close(self) -> None:
        """Close the connection; in a forked child this leaves the parent's open."""
        if self._socket is not None:
            self._socket.close()
        self._socket = self._lines = None

    def fileno(self) -> int:
        """For a selector; only while `alive`."""
        if self._socket is None:
            msg = "the link is down"
            raise ValueError(msg)
        return self._socket.fileno()

    def send(self, **message: Any) -> None:
        """Send a message to the role's process; does nothing when it has ended."""
        if self._socket is not None:
            try:
                self._socket.sendall(json.dumps(message).encode() + b"\n")
            except OSError:
                self.close()

    def receive(self, timeout_seconds: float = 0.0) -> list[Message]:
        """Return the messages of the role's process, waiting at most ``timeout_seconds`` for the first."""
        if self._socket is None or self._lines is None:
            return []
        if not select.select([self._socket], [], [], timeout_seconds)[0]:
            return []
        messages = self._lines.read()
        if self._lines.ended:
            self.close()
        return messages
