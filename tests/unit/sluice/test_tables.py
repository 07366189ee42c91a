"""Which flow may write to which table, and what a name from outside can never reach."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from sluice import TableRefused, claim_table


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sa.Connection]:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'data.db'}")
    with engine.begin() as opened:
        yield opened
    engine.dispose()


def make(connection: sa.Connection, name: str, value: int = 1) -> None:
    table = sa.Table(name, sa.MetaData(), sa.Column("a", sa.Integer))
    table.create(connection)
    connection.execute(sa.insert(table).values(a=value))


def tables(connection: sa.Connection) -> set[str]:
    return set(sa.inspect(connection).get_table_names()) - {"sluice_tables"}


@pytest.mark.parametrize("name", ["orders", "Orders", "ORDERS", "ｏrders", "orders "])  # noqa: RUF001 - a wide letter
def test_a_name_from_outside_does_not_reach_another_flows_table(connection: sa.Connection, name: str) -> None:
    claim_table(connection, "orders", flow="approve", outside=False)
    make(connection, "orders")
    with pytest.raises(TableRefused, match="belongs to the flow approve"):
        claim_table(connection, name, flow="ingest", outside=True)
    with pytest.raises(TableRefused, match="belongs to the flow approve"):
        claim_table(connection, name, flow="ingest", outside=False)


@pytest.mark.parametrize("kind", ["TABLE users (a)", "VIEW users AS SELECT 1 AS a", "TABLE Users (a)"])
def test_a_name_from_outside_does_not_reach_what_nobody_claimed(connection: sa.Connection, kind: str) -> None:
    connection.exec_driver_sql(f"CREATE {kind}")
    with pytest.raises(TableRefused, match="belongs to no flow"):
        claim_table(connection, "users", flow="ingest", outside=True)
    claim_table(connection, "users", flow="ingest", outside=False)
    claim_table(connection, "users", flow="ingest", outside=True)


def test_a_table_of_ones_own_is_there_again_and_again(connection: sa.Connection) -> None:
    for _ in range(3):
        claim_table(connection, "weather", flow="ingest", outside=True)
    make(connection, "weather")
    claim_table(connection, "weather", flow="ingest", outside=True)


def test_a_flow_that_names_its_table_finds_none_that_a_file_made_before(connection: sa.Connection) -> None:
    claim_table(connection, "orders", flow="ingest", outside=True)
    make(connection, "orders", 7)
    claim_table(connection, "orders", flow="approve", outside=False)
    assert tables(connection) == {"from_file_1_orders"}
    assert connection.scalar(sa.text("SELECT a FROM from_file_1_orders")) == 7
    make(connection, "orders")
    with pytest.raises(TableRefused):
        claim_table(connection, "orders", flow="ingest", outside=True)
    claim_table(connection, "from_file_1_orders", flow="ingest", outside=True)


@pytest.mark.parametrize(
    "name",
    [
        *("sqlite_master", "SQLITE_x", "sluice_loads", "Sluice_Tables", "pg_class", "", "a\nb", "x" * 64, "ü" * 40),
        "ｓqlite_x",  # noqa: RUF001 - a wide letter
    ],
)
def test_reserved_and_unfit_names_are_refused(connection: sa.Connection, name: str) -> None:
    with pytest.raises(TableRefused):
        claim_table(connection, name, flow="ingest", outside=False)


def test_a_claim_goes_with_its_transaction(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'data.db'}")
    with engine.connect() as connection:
        claim_table(connection, "orders", flow="one", outside=True)
        connection.rollback()
    with engine.begin() as connection:
        claim_table(connection, "orders", flow="two", outside=True)
    engine.dispose()


@pytest.mark.parametrize("name", ['x"; DROP TABLE users; --', "select", "a b", "100%"])
def test_any_other_name_is_quoted(connection: sa.Connection, name: str) -> None:
    make(connection, "users")
    claim_table(connection, name, flow="ingest", outside=True)
    make(connection, name)
    claim_table(connection, name, flow="approve", outside=False)
    assert "users" in tables(connection)
    assert name not in tables(connection)
