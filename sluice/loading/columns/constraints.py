"""The constraints of a contract on the values of a column, beyond their type."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from sluice.display import visible
from sluice.loading.columns.conversion import conversion_of, timestamps
from sluice.loading.columns.converted import as_text
from sluice.loading.contracts.contract import Constraints, ContractField

Found = tuple[pa.BooleanArray, str]
"""A mask of bad values, and the reason, which follows the value in a sentence."""

_SHOWN: Final = 5


class FieldChecks:
    """The constraints of one field. Raises `ValueError` for a constraint that its type cannot have."""

    def __init__(self, one: ContractField, type_: pa.DataType, *, key: bool = False) -> None:
        self._said = one.constraints
        self._type = type_
        if (pa.types.is_string(type_) or pa.types.is_boolean(type_)) and any(
            value is not None for *_, value in _limits(self._said)
        ):
            raise ValueError(f"a minimum or maximum is for numbers and times, and {one.name!r} is {one.type}")
        self.required = one.constraints.required or key
        self._bounds = [
            (name, words, self._limit(one, value))
            for name, words, value in _limits(one.constraints)
            if value is not None
        ]
        self._enum = None if self._said.enum is None else self._limits(one, list(self._said.enum))
        self._pattern = None if self._said.pattern is None else _compiled(self._said.pattern)

    def bad(self, values: pa.Array) -> Iterator[Found]:
        """Yield which values are bad and why; `unique` is checked elsewhere, when all rows are known."""
        if self.required and values.null_count:
            yield pc.is_null(values), "is empty, and the contract requires a value"
        for name, words, limit in self._bounds:
            yield getattr(pc, name)(values, limit), f"is {words} {limit.as_py()}"
        if self._enum is not None:
            comparable = values if values.type == self._enum.type else as_text(values)
            known = pc.or_(pc.is_in(comparable, self._enum), pc.is_null(values))
            shown = ", ".join(visible(str(value), 40) for value in self._enum.to_pylist()[:_SHOWN])
            more = ", …" if len(self._enum) > _SHOWN else ""
            yield pc.invert(known), f"is none of {shown}{more}"
        texts = values if pa.types.is_string(values.type) else None
        if self._pattern is not None:
            texts = texts if texts is not None else pc.cast(values, pa.string())
            yield (
                pc.invert(pc.match_substring_regex(texts, self._pattern)),
                f"does not fit the pattern {self._said.pattern}",
            )
        if self._said.min_length is not None and texts is not None:
            short = pc.less(pc.utf8_length(texts), self._said.min_length)
            yield short, f"has fewer than {self._said.min_length} characters"
        if self._said.max_length is not None and texts is not None:
            long = pc.greater(pc.utf8_length(texts), self._said.max_length)
            yield long, f"has more than {self._said.max_length} characters"

    def _limit(self, one: ContractField, value: Any) -> pa.Scalar:
        return self._limits(one, [value])[0]

    def _limits(self, one: ContractField, said: list[Any]) -> pa.Array:
        """Return values of the contract in the type of the column; they may be written as in a file, or as YAML."""
        conversion = conversion_of(one)
        if conversion is None and pa.types.is_timestamp(self._type):
            conversion = timestamps(self._type)
        if all(isinstance(value, str) for value in said) and conversion is not None:
            found = conversion(pa.array(said, pa.string()))
            if found.bad is not None:
                raise ValueError(f"{said} {found.reason}")
            return pc.cast(found.values, self._type)
        values = [_plain(value, self._type) for value in said]
        try:
            limits = pa.array(values, self._type)
        except (pa.ArrowException, TypeError) as error:
            raise ValueError(f"{said} is not of the type {one.type}") from error
        if limits.to_pylist() != values:  # Arrow makes 1 of 1.5
            raise ValueError(f"{said} is not of the type {one.type}")
        return limits


def _plain(value: Any, type_: pa.DataType) -> Any:
    if pa.types.is_string(type_) and not isinstance(value, str):
        return str(value)
    return value


def _limits(said: Constraints) -> list[tuple[str, str, Any]]:
    return [
        ("less", "below", said.minimum),
        ("greater", "above", said.maximum),
        ("less_equal", "not above", said.exclusive_minimum),
        ("greater_equal", "not below", said.exclusive_maximum),
    ]


def _compiled(pattern: str) -> str:
    """Return the pattern for RE2, which does the matching; it must match the whole value. Raises `ValueError`."""
    whole = f"^(?:{pattern})$"
    try:
        re.compile(whole)
        pc.match_substring_regex(pa.array([""]), whole)
    except (re.error, pa.ArrowInvalid) as error:
        raise ValueError(f"the pattern {pattern!r} cannot be used: {error}") from error
    return whole
