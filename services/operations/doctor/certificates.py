"""Checks of the TLS files that the settings name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from config.certificates import TlsFiles, certificate_remarks
from services.operations.doctor.finding import Finding, fail, ok, warn

_FIX = "put the right files in their places: new connections take them (docs/security.md)"


def check_certificates(found: Sequence[TlsFiles]) -> Iterator[Finding]:
    """Check that they can be read, belong together, and are valid for three more weeks."""
    remarks = [remark for files in found for remark in certificate_remarks(files)]
    for remark in remarks:
        yield (fail if remark.broken else warn)("certificates", remark.text, _FIX)
    if found and not remarks:
        yield ok("certificates", "each that the settings name is good for three more weeks")
