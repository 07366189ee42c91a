"""Tickets: secrets that are good once and for a while, kept as files that only the owner of the home can make."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

GOOD_SECONDS: Final = 3600.0


class Tickets:
    """The tickets in ``folder``; the file of a ticket is called after its digest, so that a listing gives none away."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def issue(self) -> str:
        """A new ticket; those that are too old are taken away."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in self._folder.iterdir():
            with suppress(FileNotFoundError):
                if not _is_good(old):
                    old.unlink()
        ticket = secrets.token_urlsafe(32)
        os.close(os.open(self._file(ticket), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        return ticket

    def take(self, ticket: str) -> bool:
        """Whether the ticket is good; from now on it is not. Of several that ask at once, one is told yes."""
        file = self._file(ticket)
        try:
            good = _is_good(file)
            file.unlink()
        except FileNotFoundError:
            return False
        return good

    def _file(self, ticket: str) -> Path:
        return self._folder / hashlib.sha256(ticket.encode("utf-8", "replace")).hexdigest()


def _is_good(file: Path) -> bool:
    return 0 <= time.time() - file.stat().st_mtime <= GOOD_SECONDS
