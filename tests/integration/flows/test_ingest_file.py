"""`ingest-file` as a run: its state, its artifacts, its database."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from flows.ingest_file import BadFile, ingest_file, inspect_file, load_rows
from services.local.embedded_servers import claim_port

pytestmark = pytest.mark.usefixtures("prefect_url")
Artifacts = Callable[[Any], dict[str | None, Any]]


def test_a_run_loads_the_file_and_publishes_what_it_did(home: Path, tmp_path: Path, artifacts: Artifacts) -> None:
    path = tmp_path / "Weather|2026.csv"
    path.write_text("city,degrees\nOslo,4.5\nRome,19\n")
    state = ingest_file(str(path), return_state=True)
    assert state.is_completed()
    assert state.message == "2 rows of Weather|2026.csv loaded into the table weather_2026"
    with sqlite3.connect(home / "data.db") as database:
        assert database.execute("SELECT * FROM weather_2026").fetchall() == [("Oslo", 4.5), ("Rome", 19.0)]
    database.close()
    shown = artifacts(state)
    assert shown["ingest-weather-2026-columns"] == [
        {"column": "city", "holds": "text", "empty values": 0},
        {"column": "degrees", "holds": "real", "empty values": 0},
    ]
    assert r"| file | Weather\|2026.csv |" in shown["ingest-weather-2026"]
    assert "| rows | 2 |" in shown["ingest-weather-2026"]
    assert "| seconds | " in shown["ingest-weather-2026"]

    again = ingest_file(str(path), return_state=True)
    assert again.message == "Weather|2026.csv is in the table weather_2026 already: nothing to do"


def test_a_broken_file_fails_its_run_with_a_message_for_people(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "broken.csv"
    path.write_text("city,degrees\nOslo\n")
    state = ingest_file(str(path), return_state=True)
    assert state.is_failed()
    assert state.message == "broken.csv, line 2: 1 field where the header names 2: column 'degrees' has none"
    with pytest.raises(BadFile):
        state.result()
    assert not (home / "data.db").exists()


def test_a_table_of_sluice_itself_is_not_loaded_into(home: Path, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a\n1\n")
    state = ingest_file(str(tmp_path / "x.csv"), table="sluice_loads", return_state=True)
    assert "the table 'sluice_loads' cannot be loaded into" in str(state.message)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """A PostgreSQL of its own, as a SQLAlchemy URL."""
    tools = {name: shutil.which(name) for name in ("initdb", "pg_ctl")}
    if not all(tools.values()):
        pytest.skip("PostgreSQL is not installed")
    directory = Path(subprocess.check_output(["mktemp", "-d", "/tmp/sluice-pg-XXXXXX"], text=True).strip())
    user: dict[str, Any] = {}
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(directory, "nobody")
        user = {"user": "nobody"}
    port = claim_port(0, "a free port")

    def call(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, cwd="/", **user)

    data = str(directory / "data")
    call(str(tools["initdb"]), "-D", data, "-U", "sluice", "-A", "trust")
    options = f"-p {port} -k {directory} -c listen_addresses=127.0.0.1 -c fsync=off"
    control = (str(tools["pg_ctl"]), "-D", data)
    call(*control, "-o", options, "-l", str(directory / "log"), "-w", "start")
    yield f"postgresql+psycopg://sluice@127.0.0.1:{port}/postgres"
    call(*control, "-m", "immediate", "stop")
    shutil.rmtree(directory)


def rows(url: str, sql: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        found = connection.execute(sql)
        return found.fetchall() if found.description else []


def test_postgresql_takes_a_file_through_its_url(postgres: str, tmp_path: Path, home: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_text('id,code,100%(sure)s,note\n1,007,1.5,\n9007199254740993,008,2,"a ""b"""\n')
    state = ingest_file(str(path), database_url=postgres, return_state=True)
    assert state.is_completed(), state.message
    assert rows(postgres, "SELECT * FROM orders ORDER BY id") == [
        (1, "007", 1.5, None),
        (9007199254740993, "008", 2.0, 'a "b"'),
    ]
    assert not home.exists()


def test_postgresql_converts_text_to_the_types_of_a_table_that_is_there_or_names_the_lines(
    postgres: str, tmp_path: Path
) -> None:
    rows(postgres, "CREATE TABLE typed (at timestamptz, price numeric(20, 2))")
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    good.write_text("at,price\n2026-03-01T10:00:00+02:00,12345678901234567.25\n")
    bad.write_text("price\n1\nabc\n")
    load_rows.fn(good, inspect_file.fn(good), "typed", postgres)
    state = ingest_file(str(bad), "typed", postgres, return_state=True)
    assert "bad.csv, lines 2 to 3: the database refuses a row: invalid input syntax for type numeric" in str(
        state.message
    )
    assert rows(postgres, "SELECT at AT TIME ZONE 'UTC' = '2026-03-01 08:00', price::text FROM typed") == [
        (True, "12345678901234567.25")
    ]


def test_loads_that_create_the_same_table_on_postgresql_all_succeed(postgres: str, tmp_path: Path, home: Path) -> None:
    rows(postgres, "DROP TABLE IF EXISTS many, sluice_loads")
    paths = [tmp_path / f"{n}.csv" for n in range(3)]
    for n, path in enumerate(paths):
        path.write_text("n\n" + f"{n}\n" * 50)
    with ThreadPoolExecutor(len(paths)) as pool:
        states = list(pool.map(lambda path: ingest_file(str(path), "many", postgres, return_state=True), paths))
    assert [state.type.value for state in states] == ["COMPLETED"] * len(paths)
    assert rows(postgres, "SELECT count(*), count(DISTINCT n) FROM many") == [(150, 3)]


def test_a_database_that_is_not_there_is_named_after_a_few_attempts(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    path = tmp_path / "x.csv"
    path.write_text("a\n1\n")
    url = f"postgresql+psycopg://sluice:hush@127.0.0.1:{claim_port(0, 'a free port')}/postgres"
    state = ingest_file(str(path), database_url=url, return_state=True)
    assert "x.csv was not loaded into x: connection" in str(state.message)
    assert "hush" not in str(state.message)


@pytest.mark.parametrize("name", ["order_reservations.csv", "Measurement Events.csv", "mine.csv"])
def test_a_files_name_does_not_lead_to_a_table_that_another_flow_has_yet_to_make(
    home: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("order_id\nforged\n")
    reserved = ["order_reservations", "measurement_events", "MINE"]
    state = ingest_file(str(tmp_path / name), reserved_tables=reserved, return_state=True)
    assert state.is_failed()
    assert "is kept for another flow" in str(state.message)
    assert not (home / "data.db").exists()
