"""Bad rows in a file of their own, which can be mended and dropped again."""

from __future__ import annotations

import csv
import filecmp
import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sluice.loading.batch import BadRow
from sluice.loading.checking import CheckedBatch
from sluice.loading.errors import RefusedFile
from sluice.loading.names import REJECTED_ENDING
from sluice.loading.showing import MASKED

TOLD: Final = ("sluice_place", "sluice_column", "sluice_value", "sluice_reason")
"""The columns that say what is wrong with a row; when the file is dropped again they are passed over."""


class RejectedRows:
    """Writes bad rows beside where they belong; they appear there with `keep`, and are gone without it."""

    def __init__(self, path: Path, columns: Sequence[str], masked: Sequence[bool]) -> None:
        """``masked`` says of each column whether its values are shown nowhere."""
        self._path = path
        self._masked = masked
        self.count = 0
        if any(folder.is_symlink() for folder in (path.parent, path)):
            raise RefusedFile(f"the bad rows cannot be written: {path} lies behind a symbolic link")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._draft = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.part")
        self._file = self._draft.open("x", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow([*TOLD, *columns])
        self._kept: Path | None = None

    def add(self, label: str, checked: CheckedBatch) -> None:
        """Write the bad rows of a batch.

        A record with another number of fields keeps that number, so that it is bad again if it is not mended. Which of
        them belong to a masked column is not known, so that none is shown where there is one.
        """
        rows = zip(*(column.to_pylist() for column in checked.refused.columns), strict=True)
        for bad, values in zip(checked.bad, rows, strict=False):
            told = ["" if value is None else str(value) for value in values]
            self._write(label, bad, [MASKED if mask else one for one, mask in zip(told, self._masked, strict=True)])
        for bad in checked.bad[checked.refused.num_rows :]:
            self._write(label, bad, [MASKED if any(self._masked) else one for one in bad.fields])

    def keep(self) -> Path:
        """Put the file in its place, complete, under a name that no other file has."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        with self._draft.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:8]
        other = self._path.with_name(f"{self._path.name.removesuffix(REJECTED_ENDING)}.{digest}{REJECTED_ENDING}")
        for target in (self._path, other):
            try:
                target.open("xb").close()
            except FileExistsError:
                if not target.is_symlink() and filecmp.cmp(self._draft, target, shallow=False):
                    self._draft.unlink()
                    return target  # of an earlier attempt
                continue
            self._draft.replace(target)
            self._kept = target
            return target
        raise RefusedFile(f"the bad rows cannot be written: {self._path} and {other} are there already; take them away")

    def discard(self) -> None:
        """Leave nothing."""
        self._file.close()
        self._draft.unlink(missing_ok=True)
        if self._kept is not None:
            self._kept.unlink(missing_ok=True)

    def _write(self, label: str, bad: BadRow, values: list[str]) -> None:
        self.count += 1
        self._writer.writerow([f"{label}:{bad.line}", bad.column or "", bad.value or "", bad.reason, *values])
