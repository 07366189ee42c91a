"""Reports in a role's status that a certificate of its settings is unusable, has expired or soon will."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from config.certificates import TlsFiles, certificate_remarks

LOOK_SECONDS: Final = 30.0


class CertificateWatch:
    """A part of each role whose settings name files of TLS."""

    def __init__(self, files: Sequence[TlsFiles], *, look_seconds: float = LOOK_SECONDS) -> None:
        self._files = files
        self._look_seconds = look_seconds
        self._said: list[str] = []

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            self._said = await asyncio.to_thread(self._look)
            await asyncio.sleep(self._look_seconds)

    def status(self) -> Mapping[str, Any]:
        """Return ``degraded`` while a file has a problem."""
        return {"degraded": "; ".join(self._said)} if self._said else {}

    def _look(self) -> list[str]:
        return [remark.text for files in self._files for remark in certificate_remarks(files)]
