"""Drafts a contract from a file: what holds for every row of it."""

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
"""Words that programs write for a missing value. They count as missing if the rest of a column has a type then."""
_FEW: Final = 12
"""Most different values, each repeated, with which a column of text gets an enumeration."""

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
"""Types to be tried for columns of text that are not plain numbers, the narrower ones first."""
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
    """What is known of one column so far, and the types that it may still have."""

    name: str
    kinds: list[tuple[dict[str, Any], Conversion]]
    look: ColumnLook = field(default_factory=ColumnLook)
    type: pa.DataType | None = None
    """The type in a format that has types of its own."""
    words: set[str] = field(default_factory=set)
    nulls: int = 0
    rows: int = 0
    comma: bool = False
    """Whether a value has a comma."""
    zeros: bool = False
    """Whether a value begins with a zero, which a number would lose."""
    thousands: bool = True
    """Whether each value may be a number with commas between thousands."""
    values: Counter[str] | None = field(default_factory=Counter)

    def add(self, values: pa.Array) -> None:
        """Add some values."""
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
        """Return the column as a field of a contract."""
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
    """Return a contract, as YAML is read, that all rows of a file called ``name`` satisfy; ``said`` is what is known.

    A column gets a type if all its values have it, ``required`` if none is missing, and an enumeration if it has few
    texts, each repeated. A column of integers or text at the beginning whose values never repeat becomes the primary
    key. The draft describes one file: what the next one may have is for its author to decide.
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
    """Return a glob for the names of later files: each sequence of digits may be another one."""
    plain = without_packing(as_dropped(name))
    plain = re.sub(r"([*?\[])", "[\\1]", plain)
    return re.sub(r"[0-9]+(?:[-_.T][0-9]+)*(?!.*/)", "*", plain)


def _conversion(kind: dict[str, Any]) -> Conversion:
    found = conversion_of(ContractField.model_validate({"name": "-", **kind}))
    return found if found is not None else timestamps(pa.timestamp("us"))
