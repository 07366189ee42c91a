"""The TLS files that the settings name: whether they can be read, belong together, and are still valid."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from config.api import ApiSettings
    from config.settings import Settings

WARN_BEFORE: Final = timedelta(days=21)
"""How long before its expiry a certificate is reported: three weeks, in case somebody is away."""


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file and the setting that names it."""

    setting: str
    path: Path


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The files of one end of a connection: trusted authorities, and its own certificate with the private key."""

    authorities: NamedFile | None = None
    certificate: NamedFile | None = None
    key: NamedFile | None = None

    def __bool__(self) -> bool:
        """Whether a setting names any file."""
        return any((self.authorities, self.certificate, self.key))


@dataclass(frozen=True, slots=True)
class CertificateRemark:
    """A sentence about a file; with ``broken`` it cannot be used, perhaps because it has ``expired``."""

    text: str
    broken: bool = False
    expired: bool = False


def api_files(api: ApiSettings) -> TlsFiles:
    """Return the files of the HTTP server."""
    return TlsFiles(
        _named("SLUICE_API__CLIENT_CA_FILE", api.client_ca_file),
        _named("SLUICE_API__CERTIFICATE_FILE", api.certificate_file),
        _named("SLUICE_API__KEY_FILE", api.key_file),
    )


def tls_files(settings: Settings, environ: Mapping[str, str]) -> list[TlsFiles]:
    """Return the files of all incoming and outgoing connections, as the settings and ``environ`` name them."""
    redis = settings.redis
    database = dict(parse_qsl(urlsplit(settings.database_url or "").query))
    prefect = environ.get("PREFECT_API_SSL_CERT_FILE")
    found = [
        TlsFiles(
            _named("SLUICE_REDIS__CA_FILE", redis.ca_file),
            _named("SLUICE_REDIS__CERTIFICATE_FILE", redis.certificate_file),
            _named("SLUICE_REDIS__KEY_FILE", redis.key_file),
        ),
        api_files(settings.api),
        TlsFiles(_named("PREFECT_API_SSL_CERT_FILE", prefect)),
        TlsFiles(
            *(
                _named(f"SLUICE_DATABASE_URL ({name})", database.get(name))
                for name in ("sslrootcert", "sslcert", "sslkey")
            )
        ),
    ]
    return [files for files in found if files]


def certificate_remarks(files: TlsFiles, *, now: datetime | None = None) -> Iterator[CertificateRemark]:
    """Return present and coming problems of the files; a sentence each."""
    now = now or datetime.now(UTC)
    for file in (files.authorities, files.certificate):
        if file is not None:
            yield from _dates(file, now, any_will_do=file is files.authorities)
    if files.certificate is None and files.key is None:
        return
    if files.certificate is None or files.key is None:
        there, missing = (files.key, "certificate") if files.certificate is None else (files.certificate, "key")
        if there is not None:
            yield CertificateRemark(f"{there.setting} is set, and the {missing} that belongs to it is not", broken=True)
        return
    yield from _pair(files.certificate, files.key)


def _named(setting: str, path: Path | str | None) -> NamedFile | None:
    return NamedFile(setting, Path(path)) if path and str(path) != "system" else None


def _dates(file: NamedFile, now: datetime, *, any_will_do: bool) -> Iterator[CertificateRemark]:
    """Return the dates that count: of several authorities one valid one suffices; of a chain each must be valid."""
    from cryptography.x509 import load_pem_x509_certificates

    try:
        found = load_pem_x509_certificates(file.path.read_bytes())
    except OSError as error:
        yield CertificateRemark(f"{file.setting}: {file.path} cannot be read: {error.strerror}", broken=True)
        return
    except ValueError:
        yield CertificateRemark(f"{file.setting}: {file.path} holds no certificate in PEM", broken=True)
        return
    judged = sorted((remark for one in found if (remark := _date(file, one, now))), key=lambda one: one.broken)
    if judged and (not any_will_do or len(judged) == len(found)):
        yield judged[0] if any_will_do else judged[-1]


def _date(file: NamedFile, one: Certificate, now: datetime) -> CertificateRemark | None:
    ends, begins = one.not_valid_after_utc, one.not_valid_before_utc
    where = f"{file.setting}: {file.path}"
    if ends <= now:
        return CertificateRemark(f"{where} has expired on {ends:%Y-%m-%d}: renew it", broken=True, expired=True)
    if begins > now:
        return CertificateRemark(f"{where} is good from {begins:%Y-%m-%d %H:%M} UTC only", broken=True)
    if ends - now <= WARN_BEFORE:
        days = (ends - now) / timedelta(days=1)
        return CertificateRemark(f"{where} expires on {ends:%Y-%m-%d}, in {days:.0f} days: renew it")
    return None


def _pair(certificate: NamedFile, key: NamedFile) -> Iterator[CertificateRemark]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        key.path.read_bytes()
        certificate.path.read_bytes()
    except OSError as error:
        if error.filename == str(key.path):
            yield CertificateRemark(f"{key.setting}: {key.path} cannot be read: {error.strerror}", broken=True)
        return
    try:
        context.load_cert_chain(certificate.path, key.path, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            text = f"{key.setting}: {key.path} is not the key of the certificate {certificate.path}"
        else:
            text = f"{key.setting}: {key.path} holds no private key in PEM that can be read without a password"
        yield CertificateRemark(text, broken=True)
