"""A first contract for files like one that is there: what holds for every row of it."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from sluice.loading.checking.uniqueness import UniqueColumns
from sluice.loading.columns.conversion import conversion_of, timestamps
from sluice.loading.columns.converted import Conversion
from sluice.loading.columns.inference import ColumnLook
from sluice.loading.contracts.contract import Contract, ContractField
from sluice.loading.file_rows import FileRows
from sluice.loading.names import as_dropped, table_of, without_packing

_WORDS: Final = ("NULL", "null", "NA", "N/A", "n/a", "NaN", "nan", "None", "none", "-", "?")
"""What programs write for no value. They are taken for that where the rest of a column then has a type."""
_FEW: Final = 12
"""A column of text with at most so many different values, each of them several times, gets an enumeration."""

_KINDS: Final[tuple[dict[str, Any], ...]] = (
    {"type": "number", "decimalChar": ","},
    {"type": "number", "decimalChar": ",", "groupChar": "."},
    {"type": "boolean", "trueValues": ["true", "True", "TRUE"], "falseValues": ["false", "False", "FALSE"]},
    {"type": "boolean", "trueValues": ["yes", "Yes", "YES"], "falseValues": ["no", "No", "NO"]},
    {"type": "date"},
    {"type": "date", "format": "%d.%m.%Y"},
    {"type": "date", "format": "%d/%m/%Y"},
    {"type": "date", "format": "%m/%d/%Y"},
    {"type": "datetime"},
    {"type": "datetime", "format": "%d.%m.%Y %H:%M"},
    {"type": "datetime", "format": "%d.%m.%Y %H:%M:%S"},
    {"type": "datetime", "format": "%d/%m/%Y %H:%M"},
    {"type": "datetime", "format": "%m/%d/%Y %H:%M"},
    {"type": "time"},
)
"""What columns of text may be besides plain numbers, the narrower ones first."""
_TYPES: Final = (
    (pa.types.is_integer, "integer"),
    (pa.types.is_floating, "number"),
    (pa.types.is_decimal, "number"),
    (pa.types.is_boolean, "boolean"),
    (pa.types.is_date, "date"),
    (pa.types.is_timestamp, "datetime"),
    (pa.types.is_time, "time"),
)
_LOOKED_AT: Final = {pa.int64(): "integer", pa.float64(): "number", pa.null(): "string"}
_THOUSANDS: Final = r"^-?[0-9]{1,3}(?:,[0-9]{3})+$"


@dataclass(slots=True)
class _Draft:
    """What one column may still be."""

    name: str
    kinds: list[tuple[dict[str, Any], Conversion]]
    look: ColumnLook = field(default_factory=ColumnLook)
    type: pa.DataType | None = None
    """Of files that say what type their values have."""
    words: set[str] = field(default_factory=set)
    nulls: int = 0
    rows: int = 0
    comma: bool = False
    """Whether a value has a comma."""
    zeros: bool = False
    """Whether a value begins with a zero that a number would not give back."""
    thousands: bool = True
    """Whether each value can be a number with commas between thousands."""
    values: Counter[str] | None = field(default_factory=Counter)

    def add(self, values: pa.Array) -> None:
        """Look at some values."""
        self.rows += len(values)
        if not pa.types.is_string(values.type):
            self.type = values.type
            self.nulls += values.null_count
            return
        words = pc.is_in(values, pa.array(_WORDS))
        if pc.any(words).as_py():
            self.words.update(pc.unique(values.filter(words)).to_pylist())
            values = pc.if_else(words, None, values)
        self.nulls += values.null_count
        self.look.add(values)
        self.kinds = [(kind, convert) for kind, convert in self.kinds if convert(values).bad is None]
        self.comma |= bool(pc.any(pc.match_substring(values, ",")).as_py())
        self.zeros |= bool(pc.any(pc.match_substring_regex(values, r"^[+-]?0[0-9]")).as_py())
        self.thousands &= bool(pc.all(pc.match_substring_regex(values, _THOUSANDS)).as_py())
        if self.values is not None:
            for one in pc.value_counts(values.drop_null()).to_pylist():
                self.values[one["values"]] += one["counts"]
            if len(self.values) > _FEW:
                self.values = None

    def field(self) -> dict[str, Any]:
        """The column in a contract."""
        found = {"name": self.name, **self._kind()}
        constraints: dict[str, Any] = {}
        if self.rows and not self.nulls:
            constraints["required"] = True
        if found["type"] == "string" and self.values and min(self.values.values()) > 1 and not self.words:
            constraints["enum"] = sorted(self.values)
        return found | ({"constraints": constraints} if constraints else {})

    def _kind(self) -> dict[str, Any]:
        if self.type is not None:
            return {"type": next((name for is_it, name in _TYPES if is_it(self.type)), "any")}
        if not pa.types.is_string(self.look.type):
            return {"type": _LOOKED_AT[self.look.type]}
        may_be_number = self.comma and not self.zeros
        kinds = [kind for kind, _ in self.kinds if may_be_number or kind["type"] != "number"] or [{"type": "string"}]
        first = kinds[0]
        formats = [kind["format"] for kind in kinds if kind["type"] == first["type"] and "format" in kind]
        if "format" in first and len(formats) > 1:
            return {"type": "string", "description": f"{first['type']}: the format is {' or '.join(formats)}"}
        if first["type"] == "number" and self.thousands:
            return {"type": "string", "description": "number: the comma is the decimalChar or the groupChar"}
        return first


def draft_contract(rows: FileRows, name: str, said: Contract) -> dict[str, Any]:
    """A contract, as YAML would have it, that the rows of a file called ``name`` keep to; ``said`` is what is known.

    A column gets a type where all its values have it, ``required`` where none is missing, and an enumeration where a
    few texts come again and again. A column of integers or text that is at the beginning and never the same twice
    becomes the primary key. It is a first one: it says what one file holds, not what the next may.
    """
    kinds = [] if rows.typed else [(kind, _conversion(kind)) for kind in _KINDS]
    drafts = [_Draft(column, list(kinds)) for column in rows.columns]
    first = UniqueColumns([0], "")
    read = 0
    for _, batch in rows.batches():
        for draft, values in zip(drafts, batch.rows.columns, strict=True):
            draft.add(values)
        first.add(batch.rows.columns, range(read, read + batch.rows.num_rows))
        read += batch.rows.num_rows
    fields = [draft.field() for draft in drafts]
    schema: dict[str, Any] = {"fields": fields}
    worded = [draft for draft, one in zip(drafts, fields, strict=True) if one["type"] != "string"]
    words = sorted({word for draft in worded for word in draft.words})
    if words:
        schema["missingValues"] = ["", *words]
    may_be_key = fields[0]["type"] in {"integer", "string"} and not drafts[0].nulls and not drafts[0].words
    if read > 1 and may_be_key and not first.repeats().rows:
        schema["primaryKey"] = rows.columns[0]
    path = pattern_of(name)
    dialect = rows.members[0][1].dialect | said.dialect.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return {
        "path": path,
        **({"encoding": said.encoding} if said.encoding else {}),
        **({"dialect": dialect} if dialect else {}),
        "schema": schema,
        "sluice": {
            "table": table_of(posixpath.splitext(path.replace("*", ""))[0]).table,
            "mode": "append",
            "on_bad_rows": "refuse",
        },
    }


def pattern_of(name: str) -> str:
    """A glob for the names of the files that follow: every run of digits may be another one."""
    plain = without_packing(as_dropped(name))
    plain = re.sub(r"([*?\[])", "[\\1]", plain)
    return re.sub(r"[0-9]+(?:[-_.T][0-9]+)*(?!.*/)", "*", plain)


def _conversion(kind: dict[str, Any]) -> Conversion:
    found = conversion_of(ContractField.model_validate({"name": "-", **kind}))
    return found if found is not None else timestamps(pa.timestamp("us"))
