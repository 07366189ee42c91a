"""Converts types of Arrow to types of SQL, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

from sluice.tables import MYSQL

_LONGEST_KEY_BYTES: Final = 3072
"""Bytes of an index of InnoDB."""
_UTF8_BYTES: Final = 4
_LONGEST_DECIMAL: Final = 38
"""Most digits of a decimal of 128 bits."""


def sql_type(type_: pa.DataType, *, keys: int = 0) -> TypeEngine[Any]:
    """Return the type of a column that holds every value of ``type_`` unchanged.

    ``keys`` is the number of columns in the primary key, if this is one of them. Raises `TypeError` for a type that no
    table has: lists, structs and durations are converted to text before.
    """
    if pa.types.is_string(type_) and keys:
        in_key = mysql.VARCHAR(_LONGEST_KEY_BYTES // _UTF8_BYTES // keys)
        return sa.Text().with_variant(in_key, *MYSQL)
    made = next((make(type_) for is_it, make in _SQL_TYPES if is_it(type_)), None)
    if made is None:
        raise TypeError(f"{type_} is no type of a table")
    return made


_SQL_TYPES: Final[tuple[tuple[Callable[[pa.DataType], bool], Callable[[Any], TypeEngine[Any]]], ...]] = (
    (pa.types.is_boolean, lambda _: sa.Boolean()),
    (pa.types.is_uint64, lambda _: sa.Numeric(20, 0).with_variant(sa.Text(), "sqlite")),
    (pa.types.is_integer, lambda _: sa.BigInteger()),
    (pa.types.is_floating, lambda _: sa.Double()),
    (pa.types.is_decimal, lambda type_: sa.Numeric(type_.precision, type_.scale).with_variant(sa.Text(), "sqlite")),
    (pa.types.is_date, lambda _: sa.Date()),
    (pa.types.is_time, lambda _: sa.Time().with_variant(mysql.TIME(fsp=6), *MYSQL)),
    (
        pa.types.is_timestamp,
        lambda type_: sa.DateTime(timezone=type_.tz is not None).with_variant(mysql.DATETIME(fsp=6), *MYSQL),
    ),
    (pa.types.is_binary, lambda _: sa.LargeBinary().with_variant(mysql.LONGBLOB(), *MYSQL)),
    (pa.types.is_string, lambda _: sa.Text().with_variant(mysql.LONGTEXT(), *MYSQL)),
)
"""Decimals are text in SQLite, which would make floating-point numbers of them."""


def arrow_type(type_: TypeEngine[Any]) -> pa.DataType | None:
    """Return what a column of that type holds unchanged; None if it gets text, to be converted or refused."""
    return next((make(type_) for classes, make in _ARROW_TYPES if isinstance(type_, classes)), None)


def _numeric(type_: sa.Numeric[Any]) -> pa.DataType | None:
    if not type_.precision or type_.precision > _LONGEST_DECIMAL:
        return None
    return pa.decimal128(type_.precision, type_.scale or 0)


def _integer(type_: sa.Integer) -> pa.DataType:
    if getattr(type_, "display_width", None) == 1:
        return pa.bool_()
    if getattr(type_, "unsigned", False):
        return pa.uint64() if isinstance(type_, sa.BigInteger) else pa.uint32()
    if isinstance(type_, sa.BigInteger):
        return pa.int64()
    return pa.int16() if isinstance(type_, sa.SmallInteger) else pa.int32()


def _timestamp(type_: sa.DateTime) -> pa.DataType:
    """Return the type of a column of times; fractions of seconds that it would round do not fit it."""
    digits = getattr(type_, "fsp", getattr(type_, "precision", None))
    mysql_default = digits is None and isinstance(type_, mysql.DATETIME | mysql.TIMESTAMP)
    unit = "s" if mysql_default or digits in {0, 1, 2} else "ms" if digits in {3, 4, 5} else "us"
    return pa.timestamp(unit, tz="UTC" if type_.timezone else None)


_ARROW_TYPES: Final[tuple[tuple[type | tuple[type, ...], Callable[[Any], pa.DataType | None]], ...]] = (
    (sa.Boolean, lambda _: pa.bool_()),
    (sa.Integer, _integer),
    ((sa.REAL, mysql.FLOAT), lambda _: pa.float32()),
    (sa.Float, lambda _: pa.float64()),
    (sa.Numeric, _numeric),
    (sa.Date, lambda _: pa.date32()),
    (sa.DateTime, _timestamp),
    (sa.Time, lambda type_: None if type_.timezone else pa.time64("us")),
    ((sa.LargeBinary, sa.BINARY, sa.VARBINARY), lambda _: pa.binary()),
    (sa.Enum, lambda _: None),
    (sa.String, lambda _: pa.string()),
)
