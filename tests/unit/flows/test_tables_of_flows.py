"""The tables of the flows here are theirs without being listed, whoever has dropped a file of such a name before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from flows import load_measurements, order_approval
from sluice.loading.errors import RefusedFile
from sluice.loading.load import load_file


def reserve(order: str) -> None:
    order_approval.set_status.fn(order, 12.5, "reserved")


def measure(load_id: str) -> None:
    load_measurements.store.fn(load_id, [{"sensor": "roof", "value": 1}])


WRITERS: dict[str, Callable[[str], None]] = {"order_reservations": reserve, "measurement_events": measure}


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> sa.Engine:
    url = f"sqlite:///{tmp_path / 'data.db'}"
    monkeypatch.setenv("SLUICE_DATABASE_URL", url)
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / ".sluice"))
    return sa.create_engine(url, poolclass=sa.NullPool)


def drop(folder: Path, name: str, database: sa.Engine) -> None:
    """What ingest-file does with a dropped file."""
    path = folder / f"{name}.csv"
    path.write_text("order_id,amount,status\nforged,1,confirmed\n")
    load_file(path, str(database.url), flow="ingest-file")


def rows(database: sa.Engine, name: str) -> int:
    with database.connect() as connection:
        return int(connection.execute(sa.text(f"SELECT count(*) FROM {name}")).scalar_one())


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_cannot_put_rows_into_the_table_of_a_flow(database: sa.Engine, tmp_path: Path, name: str) -> None:
    WRITERS[name]("first")
    for spelling in (name, name.upper(), name.replace("_", "-"), name.replace("_", " ")):
        with pytest.raises(RefusedFile, match="belongs to the flow") as refused:
            drop(tmp_path, spelling, database)
        assert "columns" not in str(refused.value)  # which are not the dropper's to know
    assert rows(database, name) == 1


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_came_first_does_not_keep_a_flow_from_its_table(
    database: sa.Engine, tmp_path: Path, name: str
) -> None:
    drop(tmp_path, name, database)
    WRITERS[name]("first")
    assert rows(database, name) == 1
    assert rows(database, f"from_file_1_{name}") == 1
    (tmp_path / f"{name}.csv").unlink()
    with pytest.raises(RefusedFile, match="belongs to the flow"):
        drop(tmp_path, name, database)


def test_a_table_that_a_file_made_is_out_of_the_way_of_a_flow_that_loads_files_into_one_of_that_name(
    database: sa.Engine, tmp_path: Path
) -> None:
    drop(tmp_path, "prices", database)
    path = tmp_path / "mine.csv"
    path.write_text("price\n1\n2\n")
    load_file(path, str(database.url), flow="mine", table="prices")
    assert rows(database, "prices") == 2
    assert rows(database, "from_file_1_prices") == 1
