"""Files of fifteen publishers, as messy as they published them, against what is known of them from elsewhere."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sluice.budgets import Budget
from sluice.loading.contracts.contract import parse_contract
from sluice.loading.errors import AmbiguousFile, RefusedFile
from sluice.loading.load import load_file
from sluice.loading.reading.source import members

DATA = Path(__file__).parents[3] / "data" / "real"
DEMO = Path(__file__).parents[4] / "demo" / "data"


def fields(*names: str) -> dict[str, Any]:
    return {"fields": [{"name": name} for name in names]}


# The record layout is in `determination_schema.csv`.
_WIDTHS = {
    "AIANHH": 4, "STATE": 2, "COUNTY": 3, "COUSUBCE": 3, "RT": 1, "CODE": 3, "POP": 9, "VAPOP": 9, "VACIT": 9,
    "VACLANG": 9, "VACLEP": 9, "ILLIT": 9, "CILLIT": 9, "LEPPCT": 5, "ILLRAT": 5, "FENG5I": 1, "FENG10I": 1,
    "NAME1": 90, "STABRV": 2, "NAME21": 90, "RACEGP": 29,
}  # fmt: skip
FIXED_WIDTH = {"schema": {"fields": [{"name": name, "width": width} for name, width in _WIDTHS.items()]}}
TZ = {"delimiter": "\t", "commentChar": "#", "header": False}


class Known(NamedTuple):
    """What is known: the beginning of the unpacked content's SHA-256, the rows, and a query with its answer."""

    sha256: str
    rows: int
    query: str
    answer: tuple[Any, ...]
    contract: dict[str, Any] | None = None


KNOWN = {
    # 93 counties; the population of Nebraska in that survey.
    "acs2012_5yr_population.csv": Known("15936013b913d957", 93, 'SELECT sum("total_population") FROM t', (1827306,)),
    # 10 varieties, 6 sites, 2 years.
    "barley.json": Known(
        "800faf5a0524e214",
        120,
        'SELECT count(DISTINCT variety), count(DISTINCT site), count(DISTINCT year), round(sum("yield"), 5) FROM t',
        (10, 6, 2, 4130.46664),
    ),
    "crimea.json": Known(
        "92e4928821e7665d", 24, "SELECT sum(wounds), sum(other), sum(disease) FROM t", (3770, 4565, 12640)
    ),
    # Lines end in CR, values have several of them.
    "determination_schema.csv": Known("4667d36f09a47721", 21, "SELECT sum(length) FROM t", (302,)),
    "event-notification-rpt-lastmonth.txt.bz2": Known(
        "a38b454c4862fcc8", 72, 'SELECT count(DISTINCT "En No") FROM t', (72,)
    ),
    # "Number of observations: 219" (statsmodels).
    "fertility.csv.zst": Known(
        "2219a1b039b2da46",
        219,
        "SELECT count(*) FROM t WHERE \"Country Code\" = 'AFG'",
        (1,),
        {"dialect": {"header": True}},
    ),
    # ISO 3166-1 has 249 countries.
    "iso3166.tab": Known(
        "837c80785080c843",
        249,
        "SELECT name FROM t WHERE code = 'NA'",
        ("Namibia",),
        {"dialect": TZ, "schema": fields("code", "name")},
    ),
    # Means of the columns 5.84, 3.05, 3.76, 1.20 (scikit-learn); the first line has the counts, not names.
    "iris.csv": Known(
        "f13ffa8fdd56fd8e",
        150,
        'SELECT round(sum("150"), 1), round(sum("4"), 1), round(sum(setosa), 1), round(sum(versicolor), 1) FROM t',
        (876.5, 458.6, 563.7, 179.9),
        {"dialect": {"headerRows": [1]}},
    ),
    # 50 states, the capital, Puerto Rico, and a line without values; every line ends in a comma.
    "FY09_EDU_Recipients_by_State.csv": Known(
        "809b938a927e1a21", 53, 'SELECT count("Code"), count("column_10") FROM t', (52, 0)
    ),
    "la-riots.csv": Known("90884a2c333e45c1", 63, "SELECT count(*) FROM t WHERE gender = 'Female'", (7,)),
    # "Quarterly observations 1959Q1 - 2009Q3: 203" (statsmodels) are a part of these.
    "macrodata.xls": Known(
        "60296d088c6aa552",
        251,
        'SELECT min("DATE"), max("DATE") FROM t',
        ("1947-01-01", "2009-07-01"),
        {"dialect": {"sheetName": "Quarterly"}},
    ),
    # "Row count: 1036", "Sum: 5430787.55" (tutorial of csvkit).
    "ne_1033_data.xlsx": Known(
        "7ce21c2d51fef747", 1036, "SELECT round(sum(acquisition_cost), 2) FROM t", (5430787.55,)
    ),
    # Mean 919.35 (R).
    "nile.csv": Known("88e97bea7249e583", 100, "SELECT sum(volume), min(year), max(year) FROM t", (91935, 1871, 1970)),
    # 152 Adelie, 68 Chinstrap, 124 Gentoo (palmerpenguins).
    "penguins-raw.csv.gz": Known(
        "144f623143c9360f",
        344,
        "SELECT sum(Species LIKE 'Adelie%'), sum(Species LIKE 'Chinstrap%'), sum(Species LIKE 'Gentoo%') FROM t",
        (152, 68, 124),
    ),
    # Every day of four years.
    "seattle-weather.csv": Known(
        "62f0609f78715812",
        1461,
        "SELECT min(date), max(date), sum(weather = 'snow') FROM t",
        ("2012/01/01", "2015/12/31", 23),
    ),
    # Every month of ten years.
    "us-employment.csv": Known(
        "0fa5366929bf738a", 120, "SELECT min(month), max(month) FROM t", ("2006-01-01", "2015-12-01")
    ),
    # What csvkit makes of it.
    "VROUTFSJ.TXT.xz": Known(
        "78a0184b1c235a9f",
        1555,
        "SELECT sum(POP), sum(VAPOP), count(DISTINCT NAME1) FROM t",
        (487694835, 356060845, 591),
        FIXED_WIDTH,
    ),
    "wheat.json": Known("f81aca0a91d8f60e", 52, "SELECT min(year), max(year) FROM t", ("1565", "1820")),
}


def content_of(path: Path) -> bytes:
    with path.open("rb") as file:
        (member,) = members(file, path.name, Budget())
        with member.open() as stream:
            return stream.read()


@pytest.mark.parametrize("name", KNOWN)
def test_a_real_file_is_loaded_as_it_is_known(tmp_path: Path, name: str) -> None:
    known = KNOWN[name]
    path = DATA / name if (DATA / name).exists() else DEMO / name
    assert hashlib.sha256(content_of(path)).hexdigest().startswith(known.sha256)
    contract = parse_contract(known.contract) if known.contract else None
    database = tmp_path / "data.db"
    report = load_file(path, f"sqlite:///{database}", table="t", contract=contract)
    assert report.rows == known.rows
    connection = sqlite3.connect(database)
    try:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (known.rows,)
        assert connection.execute(known.query).fetchone() == known.answer
    finally:
        connection.close()


def test_titles_above_the_names_are_refused_until_a_contract_says_where_the_names_are(tmp_path: Path) -> None:
    path = DATA / "Datagov_FY10_EDU_recp_by_State.csv"
    with pytest.raises(AmbiguousFile, match="headerRows"):
        load_file(path, f"sqlite:///{tmp_path / 'data.db'}", table="t")
    contract = parse_contract({"dialect": {"headerRows": [3]}})
    assert load_file(path, f"sqlite:///{tmp_path / 'data.db'}", table="t", contract=contract).rows == 55


def test_lines_that_leave_their_last_field_out_are_refused(tmp_path: Path) -> None:
    contract = parse_contract({"dialect": TZ, "schema": fields("codes", "place", "zone", "comments")})
    with pytest.raises(RefusedFile, match="it has 3 fields, and the contract names 4"):
        load_file(DATA / "zone1970.tab", f"sqlite:///{tmp_path / 'data.db'}", table="t", contract=contract)


def test_a_workbook_with_several_sheets_is_refused_until_a_contract_says_which(tmp_path: Path) -> None:
    with pytest.raises(AmbiguousFile, match="README or Monthly or Quarterly"):
        load_file(DATA / "macrodata.xls", f"sqlite:///{tmp_path / 'data.db'}", table="t")
