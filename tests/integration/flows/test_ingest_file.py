"""`ingest-file` as a run: its state, its artifacts, its database, and its wait for an approval."""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prefect.blocks.system import Secret
from prefect.client.orchestration import SyncPrefectClient

import flows.ingest_file as module
from flows.ingest_file import ingest_file
from services.local.embedded_servers import claim_port
from sluice.loading import RefusedFile
from tests.integration.flows.conftest import form_is_shown
from tests.support.databases import postgresql
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("prefect_url")
Artifacts = Callable[[Any], dict[str | None, Any]]

CONTRACT = {
    "schema": {
        "fields": [
            {"name": "city", "type": "string", "constraints": {"required": True}},
            {"name": "degrees", "type": "number", "constraints": {"minimum": -90}},
        ]
    },
    "sluice": {"on_bad_rows": "approve", "max_bad_share": 0.1},
}


def query(home: Path, sql: str) -> list[tuple[Any, ...]]:
    database = sqlite3.connect(home / "data.db")
    try:
        return database.execute(sql).fetchall()
    finally:
        database.close()


def test_the_address_of_the_database_may_be_a_secret(home: Path, tmp_path: Path) -> None:
    (tmp_path / "cities.csv").write_text("city\nOslo\n")
    Secret(value=f"sqlite:///{tmp_path / 'kept.db'}").save("address-of-tests", overwrite=True)
    assert ingest_file(
        str(tmp_path / "cities.csv"), database_secret="address-of-tests", return_state=True
    ).is_completed()
    with closing(sqlite3.connect(tmp_path / "kept.db")) as kept:
        assert kept.execute("SELECT * FROM cities").fetchall() == [("Oslo",)]
    missing = ingest_file(str(tmp_path / "cities.csv"), database_secret="not-there", return_state=True)
    assert "there is no Secret block 'not-there': create it in Prefect" in str(missing.message)


def test_a_run_loads_the_file_and_publishes_what_it_did(home: Path, tmp_path: Path, artifacts: Artifacts) -> None:
    path = tmp_path / "Weather|2026.csv"
    path.write_text("city,degrees\nOslo,4.5\nRome,19\n")
    state = ingest_file(str(path), return_state=True)
    assert state.is_completed()
    assert state.message == "2 rows of Weather|2026.csv loaded into the table weather_2026"
    assert state.result()["rows"] == 2
    assert query(home, "SELECT * FROM weather_2026") == [("Oslo", 4.5), ("Rome", 19.0)]
    shown = artifacts(state)
    assert [(one["column"], one["type"], one["empty"]) for one in shown["ingest-weather-2026-columns"]] == [
        ("city", "text", 0),
        ("degrees", "real", 0),
    ]
    page = shown["ingest-weather-2026"]
    assert r"| file | Weather\|2026.csv |" in page
    assert "| rows | 2 |" in page
    assert "| rows a second | " in page
    assert "| delimiter | ',': 100% of the rows looked at have 2 fields as the header has |" in page
    assert r"| degrees | real | ░░░░░░░░░░ 0.0% | 4.5 … 19.0 |" in page

    again = ingest_file(str(path), return_state=True)
    assert again.message == "Weather|2026.csv is in the table weather_2026 already: nothing to do"
    assert artifacts(again) == {}


def test_the_loads_of_a_table_are_shown_as_a_trend(home: Path, tmp_path: Path, artifacts: Artifacts) -> None:
    rows = ("Oslo,1\nRome,2\n", ",3\nBari,4\n,5\nKiel,6\n")
    shown = {}
    for number, content in enumerate(rows, start=1):
        path = tmp_path / f"w{number}.csv"
        path.write_text(f"city,degrees\n{content}")
        shown = artifacts(ingest_file(str(path), "weather", return_state=True))
        assert ("ingest-weather-trend" in shown) == (number > 1)
    page = shown["ingest-weather-trend"]
    assert r"| w1.csv | █████░░░░░ 2 | 0 \(0.0%\) |" in page
    assert r"| w2.csv | ██████████ 4 | 0 \(0.0%\) |" in page
    assert r"| city | 0.0% | 50.0% |" in page
    assert "| degrees |" not in page


def test_a_long_load_shows_how_far_it_is_and_how_fast(
    home: Path, tmp_path: Path, prefect: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SECONDS_BETWEEN_UPDATES", 0)
    path = tmp_path / "many.csv"
    path.write_text("a,b\n" + "1,2\n" * 900_000)
    state = ingest_file(str(path), return_state=True)
    where = {
        "artifacts": {"flow_run_id": {"any_": [str(state.state_details.flow_run_id)]}, "type": {"any_": ["progress"]}}
    }
    (found,) = prefect.request("POST", "/artifacts/filter", json=where).json()
    assert found["data"] == 100.0
    assert found["description"].startswith("many.csv: 100% of the work, ")
    assert found["description"].endswith(" rows a second")


def test_a_broken_file_fails_its_run_with_a_message_for_people(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "broken.csv"
    path.write_text("city,degrees\nOslo\n")
    state = ingest_file(str(path), return_state=True)
    assert state.is_failed()
    assert state.message == "broken.csv, line 2: 1 field where the header names 2: column 'degrees' has none"
    with pytest.raises(RefusedFile):
        state.result()


def test_a_file_that_costs_too_much_fails_its_run(home: Path, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n3,4\n")
    state = ingest_file(str(tmp_path / "x.csv"), budget={"rows": 1}, return_state=True)
    assert "the budget rows = 1 is reached" in str(state.message)


def test_a_table_of_sluice_itself_is_not_loaded_into(home: Path, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a\n1\n")
    state = ingest_file(str(tmp_path / "x.csv"), table="sluice_loads", return_state=True)
    assert state.is_failed()
    assert "sluice_loads" in str(state.message)


def test_the_contract_of_the_project_or_of_the_parameter_is_held(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "contracts").mkdir()
    contract = tmp_path / "contracts" / "w.yaml"
    contract.write_text('path: "w*.csv"\ndialect: {delimiter: "|"}\nsluice: {table: weather}\n')
    monkeypatch.setenv("SLUICE_CONTRACTS", f'["{tmp_path / "contracts"}"]')
    path = tmp_path / "w1.csv"
    path.write_text("a;b|c\n1;2|3\n")
    assert ingest_file(str(path), return_state=True).message == "1 row of w1.csv loaded into the table weather"
    assert query(home, 'SELECT "a;b", c FROM weather') == [("1;2", 3)]
    (tmp_path / "x.csv").write_text("a;b|c\n1;2|3\n")
    assert "can be read in 2 ways" in str(ingest_file(str(tmp_path / "x.csv"), return_state=True).message)
    named = ingest_file(str(tmp_path / "x.csv"), contract=str(contract), return_state=True)
    assert named.message == "1 row of x.csv loaded into the table weather"
    contract.write_text("path: w*.csv\ndialect: {delimitr: x}\n")
    broken = ingest_file(str(path), return_state=True)
    assert "w.yaml:2 cannot be used: dialect.delimitr" in str(broken.message)


def waiting_for_approval(prefect: SyncPrefectClient, name: str) -> uuid.UUID:
    """The run that waits for an answer about a file of that name; its key ends with the run's id."""

    def find() -> uuid.UUID | None:
        where = {"flow_runs": {"state": {"type": {"any_": ["PAUSED"]}}}}
        for run in prefect.request("POST", "/flow_runs/filter", json=where).json():
            if f"awaits:load-{name}-{run['id'][:8]}" in run["tags"] and form_is_shown(prefect, run):
                return uuid.UUID(run["id"])
        return None

    return wait_until(find, what=f"a run waits for an answer about {name}")


@pytest.mark.usefixtures("_collected")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("answer", "name", "message"),
    [
        (
            {"approved": True},
            "Completed",
            "1 row of w.csv loaded into the table w, 2 bad rows put into w.csv.rejected.csv",
        ),
        (
            {"approved": False, "by": "ada"},
            "Failed",
            (
                "w.csv, line 3, column 'city': is empty, and the contract requires a value (and 1 more of 3 rows);"
                " 66.7% of the rows are bad, and the contract allows 10.0% (max_bad_share): the others need an"
                " approval: loading the other rows was refused by ada"
            ),
        ),
    ],
)
def test_a_file_with_many_bad_rows_waits_for_an_approval_that_sees_them(  # noqa: PLR0917 - fixtures
    home: Path,
    tmp_path: Path,
    prefect: SyncPrefectClient,
    artifacts: Artifacts,
    answer: dict[str, Any],
    name: str,
    message: str,
) -> None:
    path = tmp_path / "w.csv"
    path.write_text("city,degrees\nOslo,4.5\n,1\nRome,-100\n")
    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(ingest_file, str(path), contract=CONTRACT, approve_within_seconds=90, return_state=True)
        waiting = waiting_for_approval(prefect, "w.csv")
        assert not (home / "data.db").exists() or query(home, "SELECT name FROM sqlite_master WHERE name = 'w'") == []
        prefect.resume_flow_run(waiting, run_input=answer)
        state = ending.result()
    assert (state.name, state.message) == (name, message)
    (page,) = [text for key, text in artifacts(state).items() if str(key).startswith("bad-rows-w-csv-")]
    assert "2 of 3 rows of w.csv are bad (66.7%)" in page
    assert r"| w.csv, line 4 | degrees | -100 | is below -90.0 |" in page
    assert (tmp_path / "rejected" / "w.csv.rejected.csv").exists() == answer["approved"]


def test_an_approval_that_nobody_gives_fails_the_run(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "w.csv"
    path.write_text("city,degrees\nOslo,4.5\n,1\n")
    state = ingest_file(str(path), contract=CONTRACT, approve_within_seconds=0.5, return_state=True)
    assert state.name == "Failed"
    assert "nobody approved of it within 0.5 s" in str(state.message)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with postgresql() as url:
        yield url


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


def test_postgresql_converts_text_to_the_types_of_a_table_that_is_there_or_names_the_line(
    postgres: str, tmp_path: Path
) -> None:
    rows(postgres, "CREATE TABLE typed (at timestamptz, price numeric(20, 2))")
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    good.write_text("at,price\n2026-03-01T10:00:00+02:00,12345678901234567.25\n")
    bad.write_text("price\n1\nabc\n")
    assert ingest_file(str(good), "typed", postgres, return_state=True).is_completed()
    state = ingest_file(str(bad), "typed", postgres, return_state=True)
    assert str(state.message).startswith("bad.csv, line 3, column 'price': 'abc' is not a number of 20 digits")
    assert rows(postgres, "SELECT at AT TIME ZONE 'UTC' = '2026-03-01 08:00', price::text FROM typed") == [
        (True, "12345678901234567.25")
    ]


def test_loads_that_create_the_same_table_on_postgresql_all_succeed(postgres: str, tmp_path: Path, home: Path) -> None:
    rows(postgres, "DROP TABLE IF EXISTS many, sluice_loads")
    paths = [tmp_path / f"{n}.csv" for n in range(3)]
    for n, path in enumerate(paths):
        path.write_text("n\n" + f"{n}\n" * 50)
    contract = {"dialect": {"header": True}}
    with ThreadPoolExecutor(len(paths)) as pool:
        states = list(
            pool.map(lambda path: ingest_file(str(path), "many", postgres, contract=contract, return_state=True), paths)
        )
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
    assert "x.csv was not loaded: connection" in str(state.message)
    assert "hush" not in str(state.message)
