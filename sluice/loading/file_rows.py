"""The rows of a dropped file: its own, or those of all files in an archive, one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sluice.loading.contracts.contract import Contract
from sluice.loading.errors import RefusedFile
from sluice.loading.formats import read
from sluice.loading.names import column_key
from sluice.loading.reading.batch import Reading, RowBatch
from sluice.loading.reading.source import Member
from sluice.loading.showing import content

OnProgress = Callable[[float, int], None]
"""Called with the share of the file that was read, from 0 to 1, and the number of rows so far."""


@dataclass(frozen=True, slots=True)
class FileRows:
    """The rows of all members, in the columns of the first member."""

    label: str
    members: Sequence[tuple[Member, Reading]]

    @property
    def columns(self) -> list[str]:
        return self.members[0][1].columns

    @property
    def typed(self) -> bool:
        return self.members[0][1].typed

    @property
    def unit(self) -> str:
        return self.members[0][1].unit

    @property
    def evidence(self) -> dict[str, dict[str, Any]]:
        """How each member was read and why, by its label."""
        return {member.label: reading.evidence for member, reading in self.members}

    @property
    def notes(self) -> list[str]:
        return [note for _, reading in self.members for note in reading.notes]

    def batches(self, progress: OnProgress | None = None) -> Iterator[tuple[str, RowBatch]]:
        """Yield the rows from the first one in batches, each with the label of its member; may be called again."""
        rows = 0
        for number, (member, reading) in enumerate(self.members):
            order = self._order(member, reading)
            for batch in reading.batches():
                rows += batch.rows.num_rows
                if progress is not None:
                    progress((number + min(1.0, member.share_read)) / len(self.members), rows)
                yield member.label, batch if order is None else replace(batch, rows=batch.rows.select(order))

    def _order(self, member: Member, reading: Reading) -> list[int] | None:
        if reading.columns == self.columns:
            return None
        places = {column_key(name.strip()): position for position, name in enumerate(reading.columns)}
        wanted = [column_key(name.strip()) for name in self.columns]
        if len(reading.columns) != len(self.columns) or set(wanted) != set(places):
            raise RefusedFile(
                f"{member.label} has the columns {[content(one) for one in reading.columns]}, and "
                f"{self.members[0][0].label} has {[content(one) for one in self.columns]}: the files of an archive "
                "go into one table, so they must have the same columns"
            )
        return [places[name] for name in wanted]


def file_rows(members: Sequence[Member], contract: Contract | None, label: str) -> FileRows:
    """Return the rows of all members.

    Raises `RefusedFile`, also for an archive of several formats, and `sluice.OverBudget`.
    """
    readings = [(member, read(member, contract)) for member in members]
    if len({reading.typed for _, reading in readings}) > 1:
        names = ", ".join(member.label for member, _ in readings)
        raise RefusedFile(f"{label} holds files of several kinds ({names}): send them one by one")
    return FileRows(label, readings)
