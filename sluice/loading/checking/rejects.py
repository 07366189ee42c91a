"""Writes bad rows into a file of their own, which can be corrected and dropped again."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from sluice.directories import enter
from sluice.loading.checking.checked_batch import CheckedBatch
from sluice.loading.columns.converted import as_text
from sluice.loading.errors import RefusedFile
from sluice.loading.names import REJECTED_ENDING
from sluice.loading.reading.batch import BadRow
from sluice.loading.showing import MASKED

TOLD: Final = ("sluice_place", "sluice_column", "sluice_value", "sluice_reason")
"""Columns that say what is wrong with a row; they are ignored when the file is dropped again."""


class RejectedRows:
    """Writes the bad rows of a file. The file appears with `keep`; after an error nothing is left.

    Use it in a ``with`` block.
    """

    def __init__(self, folder: Path, inner: Path, columns: Sequence[str], masked: Sequence[bool]) -> None:
        """Create a draft of ``inner`` below ``folder``, without following links that others may have put there.

        ``masked`` says for each column whether its values must not be shown. Raises `RefusedFile`.
        """
        self._path = folder / inner
        self._masked = masked
        try:
            below = b"/".join(map(os.fsencode, inner.parent.parts))
            self._directory = enter(os.fsencode(folder), below, make=True, own_links=True)
        except OSError as error:
            raise RefusedFile(f"the bad rows cannot be written: {self._path}: {error.strerror}") from error
        self._draft = f".{inner.name[:200]}.{secrets.token_hex(4)}.part"
        self._file = os.fdopen(self._made(self._draft), "w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow([*TOLD, *columns])
        self._kept: str | None = None

    def add(self, label: str, checked: CheckedBatch) -> None:
        """Write the bad rows of a batch.

        A record with another number of fields keeps that number, so that it is bad again unless it is corrected. Which
        of its fields belong to a masked column is unknown: if there is one, none of the fields is written.
        """
        rows = zip(*(as_text(column).to_pylist() for column in checked.refused.columns), strict=True)
        for bad, values in zip(checked.bad, rows, strict=False):
            told = [value or "" for value in values]
            self._write(label, bad, [MASKED if mask else one for one, mask in zip(told, self._masked, strict=True)])
        for bad in checked.bad[checked.refused.num_rows :]:
            self._write(label, bad, [MASKED if any(self._masked) else one for one in bad.fields])

    def keep(self) -> Path:
        """Give the finished file its name, or another one if a different file has it; return its path."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        digest = self._digest(self._draft)
        stem = self._path.name.removesuffix(REJECTED_ENDING)
        other = f"{stem}.{(digest or '')[:8]}{REJECTED_ENDING}"
        for name in (self._path.name, other):
            try:
                os.close(self._made(name))
            except FileExistsError:
                if self._digest(name) == digest:  # of an earlier attempt
                    os.unlink(self._draft, dir_fd=self._directory)
                    return self._path.with_name(name)
                continue
            os.replace(self._draft, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            self._kept = name
            return self._path.with_name(name)
        raise RefusedFile(
            f"the bad rows cannot be written: {self._path} and {self._path.with_name(other)} are there already; take "
            "them away"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Remove the draft after an error."""
        self._file.close()
        for name in filter(None, (self._draft, self._kept)) if kind is not None else ():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._directory)
        os.close(self._directory)

    def _made(self, name: str) -> int:
        return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=self._directory)

    def _digest(self, name: str) -> str | None:
        """Return the SHA-256 of a file's content; None if it is not a regular file."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(name, flags, dir_fd=self._directory), "rb") as file:
                regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
                return hashlib.file_digest(file, "sha256").hexdigest() if regular else None
        except OSError:
            return None

    def _write(self, label: str, bad: BadRow, values: list[str]) -> None:
        self._writer.writerow([f"{label}:{bad.line}", bad.column or "", bad.value or "", bad.reason, *values])
