"""Sends messages between the executor's processes: over pipes within a slot, over a Unix socket to the role's process.

Each message is a line: the name of its type, and its fields as JSON.
"""

from __future__ import annotations

import json
import os
import select
import socket
import time
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from pydantic import TypeAdapter

from services.executor.messages import ProcessMessage

_CHUNK: Final = 65_536
_KINDS: Final[Mapping[str, type]] = {kind.__name__: kind for kind in ProcessMessage.__subclasses__()}


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(_KINDS[name])


def prepare() -> None:
    """Build now what each kind of message needs; a fork inherits it."""
    for name in _KINDS:
        _adapter(name)


def to_line(message: ProcessMessage) -> bytes:
    """Return the message as a line; the inverse of `from_line`."""
    name = type(message).__name__
    # Not pydantic's JSON: names of files and variables may be no valid Unicode, which Python's JSON escapes.
    fields = _adapter(name).dump_python(message, mode="json")
    return f"{name} {json.dumps(fields)}\n".encode()


def from_line(line: bytes) -> ProcessMessage:
    """Return the message of a line, with or without its end; raises `KeyError` or `ValueError` for anything else."""
    name, _, fields = line.partition(b" ")
    message: ProcessMessage = _adapter(name.decode()).validate_python(json.loads(fields))
    return message


class PipeLines:
    """Splits what arrives on a file descriptor into messages."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.ended = False
        self._rest = b""

    def read(self) -> list[ProcessMessage]:
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
        return [from_line(line) for line in lines]

    def read_all(self, *, within_seconds: float) -> list[ProcessMessage]:
        """Return the messages until the descriptor ends, or those of the next ``within_seconds``."""
        messages: list[ProcessMessage] = []
        deadline = time.monotonic() + within_seconds
        while not self.ended and (left := deadline - time.monotonic()) > 0:
            if select.select([self.descriptor], [], [], left)[0]:
                messages += self.read()
        return messages


def write(descriptor: int, message: ProcessMessage) -> None:
    """Write one message; short ones (under a pipe's 4096 bytes) arrive whole even with several writers."""
    line = to_line(message)
    while line:
        line = line[os.write(descriptor, line) :]


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

    def send(self, message: ProcessMessage) -> None:
        """Send a message to the role's process; does nothing when it has ended."""
        if self._socket is not None:
            try:
                self._socket.sendall(to_line(message))
            except OSError:
                self.close()

    def receive(self) -> list[ProcessMessage]:
        """Return the messages of the role's process that have arrived."""
        if self._socket is None or self._lines is None or not select.select([self._socket], [], [], 0)[0]:
            return []
        messages = self._lines.read()
        if self._lines.ended:
            self.close()
        return messages
