"""Personal data is planted in files of many kinds, and looked for in everything that a load leaves behind."""

from __future__ import annotations

import json
import sqlite3
import traceback
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import SecretStr

import sluice.loading.formats
from sluice.loading import LoadReport, RefusedFile, load_file
from sluice.loading.contracts.contract import Contract, parse_contract

SECRET: Final = SecretStr("a secret of the tests")
PLANTED: Final = {
    "mail": "jane.planted@example.org",
    "phone": "+49 170 7654321",
    "iban": "DE02120300000000202051",
    "tax": "86095742719",
    "name": "Jane Plantedova",
}
TRACES: Final = ("jane.planted", "7654321", "12030000", "86095742719", "Plantedova")
MASKS: Final[Mapping[str, Any]] = {
    "mail": {"mask": {"kind": "email"}},
    "phone": {"mask": {"kind": "phone"}},
    "iban": {"mask": {"kind": "partial"}},
    "tax": {"type": "integer", "mask": {"kind": "hmac"}},
    "name": {"mask": {"kind": "drop"}},
}
COLUMNS: Final = ["id", *PLANTED]
GOOD: Final = ",".join(["1", *PLANTED.values()])


def contract(rules: Mapping[str, Any] | None = None, **fields: Mapping[str, Any]) -> Contract:
    described = {"id": {"type": "integer"}, **MASKS}
    found = [{"name": name, **described[name], **fields.get(name, {})} for name in COLUMNS]
    return parse_contract(
        {"schema": {"fields": found, "primaryKey": "id"}, "sluice": {"table": "people", **(rules or {})}}
    )


def csv(*lines: str) -> bytes:
    return "\n".join([",".join(COLUMNS), *lines, ""]).encode()


class Places:
    """Everything that is written anywhere, besides the file itself."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._told: list[str] = []

    @property
    def url(self) -> str:
        return f"sqlite:///{self._folder / 'out' / 'data.db'}"

    def load(self, content: bytes, rules: Contract, name: str = "people.csv") -> LoadReport | str:
        """The report, or the refusal with all that it was raised from."""
        file = self._folder / "in" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        try:
            report = load_file(file, self.url, contract=rules, masking_secret=SECRET)
        except RefusedFile as error:
            told = "".join(traceback.format_exception(error))
            self._told.append(told)
            return told
        self._told.append(json.dumps(report.as_dict(), default=str))
        return report

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.url.removeprefix("sqlite:///"))) as connection:
            return connection.execute(sql).fetchall()

    def check(self) -> None:
        """Nothing that was planted is anywhere."""
        files = [path for path in self._folder.rglob("*") if path.is_file() and path.parent != self._folder / "in"]
        found = {str(path): path.read_bytes() for path in files}
        assert found or self._told
        for where, content in [*found.items(), *((told, told.encode()) for told in self._told)]:
            for trace in TRACES:
                assert trace.encode() not in content, where


@pytest.fixture
def places(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(0)
    found = Places(tmp_path)
    yield found
    assert not any(trace in caplog.text for trace in TRACES)


def test_a_load_leaves_only_what_masks_leave(places: Places) -> None:
    report = places.load(csv(GOOD, "2,x,,short,7,y"), contract())
    assert isinstance(report, LoadReport)
    (first, second) = places.rows("SELECT mail, phone, iban, length(tax) FROM people ORDER BY id")
    assert first == ("***@example.org", "+49 *** 21", "***2051", 64)
    assert second == ("***", None, "***", 64)
    assert "name" not in {row[1] for row in places.rows("PRAGMA table_info(people)")}
    places.check()


BAD = {
    "a value of another type": GOOD.replace("86095742719", "86095742719x"),
    "a value of another type in a column beside": "x" + GOOD,
    "too many fields": GOOD + ",more",
    "too few fields": GOOD.rpartition(",")[0],
    "no key": GOOD[1:],
    "a NUL character": GOOD.replace("jane", "ja\0ne"),
    "a quotation mark that is missing": GOOD.replace("jane", '"jane'),
    "a quotation mark in the middle": GOOD.replace("Jane Pl", '"Jane" Pl'),
    "bytes of another encoding": GOOD.replace("Jane P", "Jän\udce9 P"),
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("on_bad_rows", ["refuse", "quarantine"])
def test_a_bad_row_shows_nothing_of_what_is_masked(places: Places, what: str, on_bad_rows: str) -> None:
    good = GOOD.replace("1,", "5,", 1)
    content = (
        csv(good, BAD[what].replace("\udce9", "~")).replace(b"~", b"\xe9") if "enc" in what else csv(good, BAD[what])
    )
    report = places.load(content, contract({"on_bad_rows": on_bad_rows}))
    assert on_bad_rows == "quarantine" or not isinstance(report, LoadReport) or "NUL" in what
    places.check()


@pytest.mark.parametrize("column", list(PLANTED))
@pytest.mark.parametrize(
    "constraints", [{"pattern": "never"}, {"enum": ["never"]}, {"maxLength": 2}, {"unique": True}], ids=str
)
@pytest.mark.parametrize("on_bad_rows", ["refuse", "quarantine"])
def test_a_value_that_breaks_the_contract_is_not_shown(
    places: Places, column: str, constraints: Mapping[str, Any], on_bad_rows: str
) -> None:
    rules = contract({"on_bad_rows": on_bad_rows}, **{column: {"type": "string", "constraints": constraints}})
    blank = ",".join(["3", *[""] * len(PLANTED)])
    places.load(csv(blank, GOOD, GOOD.replace("1,", "2,", 1)), rules)
    places.check()


def test_a_database_that_refuses_a_row_is_not_told_what_is_masked(places: Places) -> None:
    (Path(places.url.removeprefix("sqlite:///"))).parent.mkdir()
    places.rows("CREATE TABLE people (id BIGINT, mail TEXT, phone TEXT, iban TEXT CHECK (iban = 'x'), tax TEXT)")
    assert "CHECK" in str(places.load(csv(GOOD), contract()))
    places.check()


def test_two_rows_of_one_key_do_not_show_it(places: Places) -> None:
    rules = contract({"mode": "upsert"}).model_dump(by_alias=True)
    rules["schema"]["primaryKey"] = "tax"
    places.load(csv(GOOD, GOOD.replace("1,", "2,", 1)), parse_contract(rules))
    places.check()


def test_a_row_that_was_put_aside_needs_its_masked_values_anew(places: Places) -> None:
    rules = contract({"on_bad_rows": "quarantine"})
    report = places.load(csv(GOOD, "x" + GOOD), rules)
    assert isinstance(report, LoadReport)
    assert report.rejected is not None
    mended = report.rejected.read_bytes().replace(b",x1,", b",2,")
    assert b",2,(masked)," in mended
    assert "stands for a value that was masked" in str(places.load(mended, contract(), "people.csv.rejected.csv"))
    assert places.rows("SELECT count(*) FROM people") == [(1,)]
    places.check()


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_a_dialect_is_found_without_showing_values(places: Places, delimiter: str) -> None:
    places.load(csv(GOOD, GOOD.replace("1,", "2,", 1)).replace(b",", delimiter.encode()), contract())
    places.load(b"id,mail\n" + GOOD.encode(), contract())
    places.load(GOOD.encode() + b"\n" + GOOD.replace(",", ";").encode() + b"\n", contract())
    places.check()


@pytest.mark.parametrize("broken", ["", "}", ',"id": 2', '"more"'])
@pytest.mark.parametrize("name", ["people.jsonl", "people.json"])
def test_json_shows_nothing_of_what_is_masked(places: Places, name: str, broken: str) -> None:
    row = json.dumps({"id": 1, **PLANTED, "tax": int(PLANTED["tax"])})
    line = row[:-1] + broken + "}" if broken != "}" else row + "}"
    places.load((line if name.endswith("l") else f"[{line}]").encode(), contract(), name)
    places.load(json.dumps([PLANTED["mail"], 1]).encode(), contract(), name)
    places.load(json.dumps({"id": "x", **PLANTED, "tax": {"no": PLANTED["tax"]}}).encode(), contract(), name)
    places.check()


def test_without_a_secret_nothing_is_read(places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLUICE_MASKING_SECRET", raising=False)
    (tmp_path / "people.csv").write_bytes(csv(GOOD))
    with pytest.raises(
        RefusedFile, match=r"people\.csv: the column 'tax' is to be masked with `hmac`, and there is no"
    ):
        load_file(tmp_path / "people.csv", places.url, contract=contract())
    monkeypatch.setenv("SLUICE_MASKING_SECRET", SECRET.get_secret_value())
    assert load_file(tmp_path / "people.csv", places.url, contract=contract()).rows == 1


def test_readers_show_what_is_in_a_file_only_where_it_may_be_shown() -> None:
    names = {"sheet_extent.py", "excel.py", "delimiters.py"}  # of sheets and delimiters
    formats = Path(sluice.loading.formats.__file__).parent
    shown = {path.name for path in formats.rglob("*.py") if "sluice.display" in path.read_text()}
    assert shown == names, "use `sluice.loading.showing.content`"
