"""Files into tables: `load_file`, with a contract and masks, beside what people write themselves without either.

``python -m benchmarks.loading [--megabytes N] [--targets sqlite postgresql] [--ways WAY ...] [--small-files N]``. A
CSV with quoted text is generated; each way of loading it is a process of its own, whose processor seconds (user and
system), wall seconds and highest resident memory are those that the kernel counts. PostgreSQL is a server of its own
without fsync; its processor time is not in the table, its time is in the wall seconds.

The other ways need pandas and ADBC's PostgreSQL driver, which Sluice does not: `make bench` puts them into .venv-bench.

Goals: 3 times as fast as pandas in chunks into SQLite and 5 times into PostgreSQL, within 1.5 times of the fastest
library alone, at most 300 MiB for 1 GB.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from config.settings import CHECKOUT

OTHER_PYTHON: Final = CHECKOUT / ".venv-bench" / "bin" / "python"
ROWS_A_CUSTOMER: Final = 4
WORDS: Final = [
    "parcel",
    "left",
    "with",
    "a",
    "neighbour,",
    "second",
    "floor;",
    "ring",
    "twice",
    "please",
    "call",
    "before",
    "noon",
    "fragile",
    "glass",
]
CONTRACT: Final[dict[str, Any]] = {
    "schema": {
        "fields": [
            {"name": "id", "type": "integer", "constraints": {"required": True, "unique": True, "minimum": 1}},
            {"name": "placed_at", "type": "datetime", "constraints": {"required": True}},
            {"name": "email", "type": "string", "mask": {"kind": "email"}},
            {"name": "phone", "type": "string", "mask": {"kind": "phone"}},
            {"name": "account", "type": "string", "mask": {"kind": "hmac"}},
            {"name": "amount", "type": "number", "constraints": {"minimum": 0}},
            {"name": "status", "type": "string", "constraints": {"enum": ["new", "paid", "sent"]}},
            {"name": "note", "type": "string", "constraints": {"maxLength": 500}},
        ]
    },
    "sluice": {"table": "orders"},
}

SLUICE: Final = """
import json, sys
from pydantic import SecretStr
from sluice import Budget
from sluice.loading import load_file
from sluice.loading.contracts.contract import parse_contract
path, url, contract = sys.argv[1:]
report = load_file(
    path, url, contract=parse_contract(json.loads(contract)), table="orders",
    budget=Budget(unpacked_bytes=64 * 1024**3), masking_secret=SecretStr("a secret of the benchmark"),
)
print(report.rows)
"""
PANDAS: Final = """
import sys
import pandas as pd, sqlalchemy as sa
engine = sa.create_engine(sys.argv[2])
rows = 0
for chunk in pd.read_csv(sys.argv[1], chunksize=100_000):
    chunk.to_sql("orders", engine, if_exists="append", index=False)
    rows += len(chunk)
print(rows)
"""
ADBC: Final = """
import sys
path, url, reader = sys.argv[1:]
if reader == "duckdb":
    import duckdb
    batches = duckdb.connect().execute("SELECT * FROM read_csv(?)", [path]).to_arrow_reader(100_000)
else:
    import pyarrow.csv as csv
    batches = csv.open_csv(path, parse_options=csv.ParseOptions(newlines_in_values=True))
if url.startswith("sqlite"):
    from adbc_driver_sqlite import dbapi
    connection = dbapi.connect(url.removeprefix("sqlite:///"))
else:
    from adbc_driver_postgresql import dbapi
    connection = dbapi.connect(url.replace("+psycopg", ""))
with connection, connection.cursor() as cursor:
    print(cursor.adbc_ingest("orders", batches, mode="create"))
    connection.commit()
"""
SMALL: Final = """
import sys
from pathlib import Path
from sluice.loading import load_file
folder, url = Path(sys.argv[1]), sys.argv[2]
print(sum(load_file(path, url, table="small").rows > 0 for path in sorted(folder.iterdir())))
"""
WAYS: Final = {
    "Sluice, with contract and masks": (SLUICE, json.dumps(CONTRACT)),
    "Sluice, without": (SLUICE, "{}"),
    "pandas in chunks": (PANDAS,),
    "DuckDB's reader, ADBC": (ADBC, "duckdb"),
    "pyarrow's reader, ADBC": (ADBC, "pyarrow"),
}


def generate(path: Path, megabytes: int) -> int:
    """Write a CSV of about so many megabytes; answers its rows."""
    random.seed(1)
    notes = [_note(random.randint(2, 16)) for _ in range(5000)]
    rows = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write("id,placed_at,email,phone,account,amount,status,note\n")
        while file.tell() < megabytes * 1_000_000:
            file.write("".join(_row(rows + number, notes) for number in range(1, 5001)))
            rows += 5000
    return rows


def _note(words: int) -> str:
    said = " ".join(random.choices(WORDS, k=words))
    kind = random.random()
    if kind < 0.05:
        said = said.replace(" ", "\n", 1)
    elif kind < 0.2:
        said = f'{said[:8]}""{said[8:]}""'
    return f'"{said}"'


def _row(number: int, notes: list[str]) -> str:
    customer = number // ROWS_A_CUSTOMER * 7919 % 100_000_007
    seconds = number % 86_400
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return (
        f"{number},2026-{number % 12 + 1:02}-{number % 28 + 1:02}T{clock},customer{customer}@example.org,"
        f"+49 170 {customer % 10_000_000:07},DE{customer:020},{number * 37 % 1_000_000 / 100:.2f},"
        f"{('new', 'paid', 'sent')[number % 3]},{notes[number * 31 % len(notes)]}\n"
    )


def measured(python: Path | str, program: str, *arguments: str) -> dict[str, Any]:
    """Run a program; answers what the kernel counted, and its last line."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as told:
        process = subprocess.Popen([str(python), "-c", program, *arguments], cwd=CHECKOUT, stdout=told)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - began
        told.seek(0)
        lines = told.read().split()
    if process.returncode:
        raise SystemExit(f"a way of loading failed with {process.returncode}")
    return {
        "processor s": used.ru_utime + used.ru_stime,
        "wall s": wall,
        "MiB": used.ru_maxrss / 1024,
        "count": int(lines[-1]),
    }


@contextmanager
def databases(target: str, home: Path) -> Iterator[Any]:
    """A function that answers the URL of a database without tables."""
    if target == "sqlite":
        numbers = iter(range(1_000_000))
        yield lambda: f"sqlite:///{home / f'{next(numbers)}.db'}"
        return
    import psycopg

    from tests.support.databases import postgresql

    with postgresql() as url:

        def empty() -> str:
            with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
                connection.execute("DROP SCHEMA public CASCADE")
                connection.execute("CREATE SCHEMA public")
                connection.execute("CHECKPOINT")
            return url

        yield empty


def large(target: str, ways: list[str], megabytes: int, home: Path) -> Iterator[dict[str, Any]]:
    """One large file, by every way; beside each stand its times against those of the first one."""
    path = home / "orders.csv"
    if not path.exists():
        generate(path, megabytes)
    first: dict[str, Any] | None = None
    with databases(target, home) as database:
        for name in ways:
            program, *arguments = WAYS[name]
            python = sys.executable if name.startswith("Sluice") else OTHER_PYTHON
            if not Path(python).exists():
                print(f"  ({name}: needs {OTHER_PYTHON.relative_to(CHECKOUT)}; `make bench` makes it)", file=sys.stderr)
                continue
            url = database()
            found = measured(python, program, str(path), url, *arguments)
            if target == "sqlite":
                _check_rows(Path(url.removeprefix("sqlite:///")), found["count"])
            first = first or found
            ratios = {f"{what}, times": round(found[what] / first[what], 2) for what in ("processor s", "wall s")}
            yield {
                "measure": f"{path.stat().st_size / 1e6:.0f} MB into {target}",
                "of": name,
                **_rounded(found),
                **ratios,
            }


def _check_rows(file: Path, rows: int) -> None:
    connection = sqlite3.connect(file)
    try:
        (found,) = connection.execute("SELECT count(*) FROM orders").fetchone()
    finally:
        connection.close()
    if rows not in {found, -1}:
        raise SystemExit(f"{found} rows instead of {rows} are in {file}")
    file.unlink()


def small(target: str, files: int, home: Path) -> Iterator[dict[str, Any]]:
    """Many files of ten rows, one after another in one process, as `load_file` takes them."""
    if not files:
        return
    folder = home / "small"
    if not folder.exists():
        folder.mkdir()
        for number in range(files):
            rows = "".join(f"{number * 10 + row},name {row},{row}.5\n" for row in range(10))
            (folder / f"{number:06}.csv").write_text(f"id,name,amount\n{rows}")
    with databases(target, home) as database:
        found = measured(sys.executable, SMALL, str(folder), database())
    speed = {
        "files/s": round(files / found["wall s"]),
        "processor ms a file": round(1000 * found["processor s"] / files, 2),
    }
    yield {"measure": f"{files} files of 10 rows into {target}", "of": "Sluice", **_rounded(found), **speed}


def _rounded(one: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 1) if isinstance(value, float) else value for name, value in one.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--small-files", type=int, default=10_000)
    parser.add_argument("--targets", nargs="*", default=["sqlite", "postgresql"])
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--directory", type=Path, default=None, help="where to work: its disk is measured")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="sluice-bench-", dir=options.directory) as folder:
        home = Path(folder)
        for target in options.targets:
            taken = large(target, options.ways, options.megabytes, home) if options.megabytes else iter(())
            for row in itertools.chain(taken, small(target, options.small_files, home)):
                rows.append(row)
                if not options.json:
                    values = " · ".join(
                        f"{name} {value}" for name, value in row.items() if name not in {"measure", "of"}
                    )
                    print(f"| {row['measure']} | {row['of']} | {values} |", flush=True)
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
