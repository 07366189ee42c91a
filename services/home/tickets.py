"""Tickets: secrets that are valid once and for a limited time, kept as files that only the home's owner can create."""

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
    """The tickets in ``folder``; each file is named by its ticket's digest, so that a listing reveals none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def issue(self) -> str:
        """Create a ticket, and delete expired ones."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in self._folder.iterdir():
            with suppress(FileNotFoundError):
                if not _is_good(old):
                    old.unlink()
        ticket = secrets.token_urlsafe(32)
        os.close(os.open(self._file(ticket), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        return ticket

    def take(self, ticket: str) -> bool:
        """Whether the ticket is valid, which it is not afterwards: of concurrent callers one gets true."""
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
