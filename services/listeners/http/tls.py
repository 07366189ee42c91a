"""TLS of the HTTP server: its certificate and the authorities of its clients, reloaded without a restart."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

import structlog

from config.api import ApiSettings
from config.certificates import NamedFile, api_files, certificate_remarks
from events.errors import ConfigError

LOOK_SECONDS: Final = 2.0
"""How often the files are checked for changes."""

log = structlog.get_logger()

_Look = list[tuple[int, int, int] | None]


class ServerTls:
    """The server's side of TLS. Raises `ConfigError` for files that cannot be used.

    A new certificate is used for new connections; open ones keep theirs. Files that do not belong together, as in the
    middle of a change, are ignored until they do.
    """

    def __init__(self, settings: ApiSettings) -> None:
        self._files = api_files(settings)
        self._looked = self._look()
        problems = self._problems()
        if problems:
            raise ConfigError(*problems)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        if self._files.authorities is not None:
            self.context.verify_mode = ssl.CERT_REQUIRED
        self._load()

    async def follow(self) -> None:
        """Use new files when they appear, until cancelled."""
        said: list[str] = []
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            looked = self._look()
            if looked == self._looked:
                continue
            problems = await asyncio.to_thread(self._problems)
            if not problems:
                try:
                    self._load()
                except (OSError, ssl.SSLError) as error:  # changed once more, just now
                    problems = [str(error)]
            if problems and problems != said:
                log.warning("the certificate of the API cannot be changed yet", problems=problems)
            elif not problems:
                self._looked = looked
                log.info("the API uses a new certificate")
            said = problems

    def _load(self) -> None:
        if self._files.certificate is not None and self._files.key is not None:
            self.context.load_cert_chain(self._files.certificate.path, self._files.key.path, password="")
        if self._files.authorities is not None:
            self.context.load_verify_locations(self._files.authorities.path)

    def _problems(self) -> list[str]:
        # An expired certificate is used all the same: clients refuse it, and the status reports it.
        return [one.text for one in certificate_remarks(self._files) if one.broken and not one.expired]

    def _look(self) -> _Look:
        return [_stamp(file) for file in (self._files.authorities, self._files.certificate, self._files.key)]


def _stamp(file: NamedFile | None) -> tuple[int, int, int] | None:
    try:
        found = file.path.stat() if file is not None else None
    except OSError:
        return None
    return None if found is None else (found.st_ino, found.st_mtime_ns, found.st_size)
