"""Types of Arrow as types of SQL, and back: what a column holds unchanged, and what it does not."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.types import TypeEngine

from sluice.loading.targets.sql_types import arrow_type, sql_type

DIALECTS: dict[str, sa.Dialect] = {
    "mysql": mysql.dialect(),
    "postgresql": postgresql.dialect(),
    "sqlite": sqlite.dialect(),
}


def compiled(type_: pa.DataType, dialect: str, **more: Any) -> str:
    return sql_type(type_, **more).compile(DIALECTS[dialect])


@pytest.mark.parametrize(
    ("type_", "on_mysql", "on_postgresql", "on_sqlite"),
    [
        (pa.bool_(), "BOOL", "BOOLEAN", "BOOLEAN"),
        (pa.int64(), "BIGINT", "BIGINT", "BIGINT"),
        (pa.int8(), "BIGINT", "BIGINT", "BIGINT"),
        (pa.uint64(), "NUMERIC(20, 0)", "NUMERIC(20, 0)", "TEXT"),
        (pa.float32(), "DOUBLE", "DOUBLE PRECISION", "DOUBLE"),
        (pa.decimal128(9, 2), "NUMERIC(9, 2)", "NUMERIC(9, 2)", "TEXT"),
        (pa.date32(), "DATE", "DATE", "DATE"),
        (pa.time64("us"), "TIME(6)", "TIME WITHOUT TIME ZONE", "TIME"),
        (pa.timestamp("us"), "DATETIME(6)", "TIMESTAMP WITHOUT TIME ZONE", "DATETIME"),
        (pa.timestamp("us", "UTC"), "DATETIME(6)", "TIMESTAMP WITH TIME ZONE", "DATETIME"),
        (pa.binary(), "LONGBLOB", "BYTEA", "BLOB"),
        (pa.string(), "LONGTEXT", "TEXT", "TEXT"),
    ],
)
def test_a_column_holds_every_value_of_the_type(
    type_: pa.DataType, on_mysql: str, on_postgresql: str, on_sqlite: str
) -> None:
    found = [compiled(type_, name) for name in ("mysql", "postgresql", "sqlite")]
    assert found == [on_mysql, on_postgresql, on_sqlite]


@pytest.mark.parametrize(("keys", "length"), [(1, 768), (2, 384), (3, 256)])
def test_texts_of_a_key_fit_an_index_of_mysql(keys: int, length: int) -> None:
    assert compiled(pa.string(), "mysql", keys=keys) == f"VARCHAR({length})"
    assert compiled(pa.string(), "postgresql", keys=keys) == "TEXT"


@pytest.mark.parametrize("type_", [pa.list_(pa.int64()), pa.struct([("a", pa.int64())]), pa.duration("s"), pa.null()])
def test_what_is_no_type_of_a_table_is_refused(type_: pa.DataType) -> None:
    with pytest.raises(TypeError, match="is no type of a table"):
        sql_type(type_)


@pytest.mark.parametrize(
    ("type_", "arrow"),
    [
        (sa.Boolean(), pa.bool_()),
        (mysql.TINYINT(1), pa.bool_()),
        (sa.SmallInteger(), pa.int16()),
        (sa.Integer(), pa.int32()),
        (sa.BigInteger(), pa.int64()),
        (mysql.INTEGER(unsigned=True), pa.uint32()),
        (mysql.BIGINT(unsigned=True), pa.uint64()),
        (sa.REAL(), pa.float32()),
        (mysql.FLOAT(), pa.float32()),
        (sa.Double(), pa.float64()),
        (sa.Float(), pa.float64()),
        (sa.Numeric(9, 2), pa.decimal128(9, 2)),
        (sa.Numeric(9), pa.decimal128(9, 0)),
        (sa.Numeric(), None),
        (sa.Numeric(50, 2), None),
        (sa.Date(), pa.date32()),
        (sa.DateTime(), pa.timestamp("us")),
        (sa.DateTime(timezone=True), pa.timestamp("us", "UTC")),
        (mysql.DATETIME(), pa.timestamp("s")),
        (mysql.DATETIME(fsp=3), pa.timestamp("ms")),
        (mysql.DATETIME(fsp=6), pa.timestamp("us")),
        (postgresql.TIMESTAMP(precision=0), pa.timestamp("s")),
        (sa.Time(), pa.time64("us")),
        (sa.Time(timezone=True), None),
        (sa.LargeBinary(), pa.binary()),
        (mysql.VARBINARY(5), pa.binary()),
        (sa.Enum("a", "b"), None),
        (mysql.ENUM("a"), None),
        (sa.String(5), pa.string()),
        (mysql.LONGTEXT(), pa.string()),
        (postgresql.INTERVAL(), None),
        (postgresql.JSONB(), None),
    ],
)
def test_a_column_of_a_table_is_given_what_it_holds_unchanged(
    type_: TypeEngine[Any], arrow: pa.DataType | None
) -> None:
    assert arrow_type(type_) == arrow
