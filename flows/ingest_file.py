"""Load one file of rows (CSV, JSON, JSON Lines or Parquet, gzip-compressed or not) into a database table.

The file is read twice: once to learn what its columns hold, once to load it in a single transaction. Nothing of a file
that cannot be loaded stays behind, and one version of a file is never loaded twice into the same table.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import math
import os
import re
import shutil
import sqlite3
import tempfile
import time
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

import sqlalchemy as sa
from prefect import State, Task, flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.states import Completed, Failed
from prefect.tasks import exponential_backoff
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.types import TypeEngine

from sluice import FileChanged, FileRefused, OpenedFile, OverBudget, TableRefused, in_markdown, open_file, visible
from sluice.budgets import BoundedLines, Budget, unpacked
from sluice.parquet import parquet_batches
from sluice.tables import LONGEST_NAME, RESERVED, claim_table, table_key

DEPLOYMENT: Final = {"memory_mb": 1024, "time_seconds": 1800}

Kind: TypeAlias = str
Rows: TypeAlias = Iterator[tuple[int, Mapping[str, Any]]]

BATCH_ROWS: Final = 2_000
BATCH_CELLS: Final = 100_000
BATCH_BYTES: Final = 16 * 1024 * 1024
"""As soon as one of these is reached, rows go to the database."""
BUDGET: Final = Budget()
FLOW: Final = "ingest-file"
RESERVED_TABLES: Final = ("order_reservations", "measurement_events")
"""Of the other flows of this project, which may not have made them yet."""
SQLITE_WAIT_SECONDS: Final = 300
"""How long a load waits for the other loads that write to the same SQLite file."""

INTEGER: Final = re.compile(r"0|-?[1-9][0-9]{0,18}")  # 007 and -0 stay text: a number would not give them back
REAL: Final = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]+(?:[eE][-+]?[0-9]{1,3})?")  # 1E5 may be an article number

LEDGER: Final = sa.Table(
    "sluice_loads",
    sa.MetaData(),
    sa.Column("load_key", sa.String(64), primary_key=True),
    sa.Column("table_name", sa.Text, nullable=False),
    sa.Column("file", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("loaded_at", sa.Text, nullable=False),
)
"""Which version of which file is in which table; its rows commit together with the rows they speak of."""


class BadFile(ValueError):
    """The file cannot be loaded as it is; the message names the file, the place in it and what is wrong there."""


# ---------------------------------------------------------------------------------------------- what the columns hold

TYPES: Final[Mapping[Kind, TypeEngine[Any]]] = {
    "integer": sa.BigInteger(),
    "long": sa.BigInteger(),  # with values that a floating-point number would round
    "real": sa.Double(),
    "boolean": sa.Boolean(),
    "bytes": sa.LargeBinary(),
    "text": sa.Text(),
    "other": sa.types.NullType(),  # a column that was there before: the database converts text to its type, or refuses
}


def kind_of_text(text: str) -> Kind:
    """The narrowest kind that gives the value of a CSV field back unchanged."""
    if INTEGER.fullmatch(text):
        return kind_of_value(int(text))
    return "real" if REAL.fullmatch(text) and _exact(text) else "text"


def kind_of_value(value: Any) -> Kind:
    """The narrowest kind for a value of a JSON or Parquet file; JSON numbers with a fraction come as `Decimal`."""
    match value:
        case bool():
            return "boolean"
        case int() if -(2**63) <= value < 2**63:
            return "integer" if abs(value) <= 2**53 else "long"
        case float() | Decimal() if isinstance(value, float) or _exact(str(value)):
            return "real"
        case bytes():
            return "bytes"
        case _:
            return "text"


def wider(one: Kind | None, other: Kind) -> Kind:
    """The narrowest kind that holds the values of both unchanged."""
    both = {one or other, other}
    if len(both) == 1:
        return other
    return "long" if both == {"integer", "long"} else "real" if both == {"integer", "real"} else "text"


def takes(column: Kind, value: Kind) -> bool:
    """Whether a column of one kind holds values of another unchanged."""
    return column in {"text", "other"} or wider(column, value) in {column, "long" if column == "integer" else column}


def _exact(text: str) -> bool:
    if len(text) <= 16 and "e" not in text.lower():  # noqa: PLR2004 - 15 digits and a point always survive
        return True
    number = float(text)
    return math.isfinite(number) and Decimal(repr(number)) == Decimal(text)


def _as_text(value: Any) -> str:
    if not isinstance(value, str):
        value = (
            json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, bool | list | dict) else str(value)
        )
    if "\0" in value:
        raise ValueError("holds a NUL character, which databases refuse")
    value.encode()  # half a surrogate pair, from a JSON escape, is no text
    return str(value)


CONVERT: Final[Mapping[Kind, Callable[[Any], Any]]] = {
    "integer": int,
    "long": int,
    "real": float,
    "boolean": bool,
    "bytes": bytes,
    "text": _as_text,
    "other": _as_text,
}


# --------------------------------------------------------------------------------------------------- reading the file


def csv_rows(file: IO[bytes], name: str, budget: Budget) -> Rows:
    """The records by the names of the header, with the line that each begins at; an empty field is None."""
    line, names = 1, list[str]()
    with io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        csv.field_size_limit(
            max(budget.line_bytes, 128 * 1024)
        )  # of the whole process; `BoundedLines` keeps to the budget
        delimiter = "\t" if ".tsv" in Path(name.lower()).suffixes else _delimiter(text.read(64 * 1024))
        text.seek(0)
        lines = BoundedLines(text, budget, name)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            for record in reader:
                lines.end_record()
                if not names:
                    budget.check("columns", len(record), f"{name} has {len(record)} columns")
                    names = column_names(record)
                elif len(record) == len(names):
                    yield line, {key: cell or None for key, cell in zip(names, record, strict=True)}
                elif record:
                    raise BadFile(f"{name}, line {line}: {_uneven(record, names)}")
                line = reader.line_num + 1
        except csv.Error as error:
            raise BadFile(f"{name}, line {line}: {error}; is a quotation mark missing?") from error
    if not names:
        raise BadFile(f"{name} has no line with the names of the columns")


def _uneven(record: list[str], names: list[str]) -> str:
    short = len(record) < len(names)
    reason = f"column {names[len(record)]!r} has none" if short else "a field with the delimiter in it must be quoted"
    return f"{_many(len(record), 'field')} where the header names {len(names)}: {reason}"


def json_lines_rows(file: IO[bytes], name: str, budget: Budget) -> Rows:
    """The objects, with their lines; blank lines are passed over."""
    with io.TextIOWrapper(file, encoding="utf-8-sig") as text:
        lines = BoundedLines(text, budget, name)
        for number, line in enumerate(lines, start=1):
            lines.end_record()
            if line.strip():
                yield number, _object(_parse(line.rstrip(), name, number), f"{name}, line {number}")


def json_rows(file: IO[bytes], name: str, budget: Budget) -> Rows:
    """The objects of an array, counted from 1; a document that is an object is a single row."""
    raw = file.read(budget.document_bytes + 1)
    if len(raw) > budget.document_bytes:
        what = f"{name} can only be read as a whole, and is too large for that (JSON Lines, an object a line, is not)"
        budget.exceeded("document_bytes", what)
    document = _parse(raw.decode("utf-8-sig"), name, 1)
    for number, value in enumerate(document if isinstance(document, list) else [document], start=1):
        yield number, _object(value, f"{name}, element {number}")


def parquet_rows(file: IO[bytes], name: str, budget: Budget) -> Rows:
    """The rows, counted from 1, with one batch of them in memory; times become text in ISO 8601."""
    import pyarrow as pa  # here, because it costs each run a fifth of a second

    number = 0
    try:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        for batch in parquet_batches(file, budget, size=size, name=name, most_rows=BATCH_ROWS):
            columns = [one.cast(pa.string()) if pa.types.is_temporal(one.type) else one for one in batch.columns]
            for row in pa.RecordBatch.from_arrays(columns, column_names(batch.schema.names)).to_pylist():
                number += 1
                yield number, row
    except pa.ArrowException as error:
        raise BadFile(f"{name} is not a readable Parquet file: {error}") from error


READERS: Final[Mapping[str, tuple[Callable[[Any, str, Budget], Rows], str]]] = {
    ".csv": (csv_rows, "line"),
    ".tsv": (csv_rows, "line"),
    ".txt": (csv_rows, "line"),
    ".json": (json_rows, "element"),
    ".jsonl": (json_lines_rows, "line"),
    ".ndjson": (json_lines_rows, "line"),
    ".parquet": (parquet_rows, "row"),
}
"""By the end of the file's name: how it is read, and what its rows are counted in."""


@contextmanager
def open_rows(path: Path, budget: Budget = BUDGET) -> Iterator[Rows]:
    """The rows of a file with their places in it; whatever is wrong with the file raises `BadFile`."""
    name = display(path)
    read, _ = reader_of(path)
    with opened(path, budget) as raw:
        try:
            file = _unpacked(path, raw, budget)
            yield read(_on_disk(file) if read is parquet_rows and file is not raw else file, name, budget)
        except UnicodeDecodeError as error:
            raise BadFile(f"{name}{_undecodable(path, budget)}: save the file as UTF-8") from error
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise BadFile(f"{name} is not a complete gzip file: {error}") from error
        except RecursionError as error:
            raise BadFile(f"{name} nests its values too deeply") from error
        except MemoryError as error:
            raise BadFile(f"{name} needs more memory than there is") from error


@contextmanager
def opened(path: Path, budget: Budget = BUDGET) -> Iterator[OpenedFile]:
    """The file as it was announced; what is wrong with that raises `BadFile`."""
    try:
        with open_file(path) as raw:
            budget.check("unpacked_bytes", raw.size, f"{display(path)} has {raw.size} bytes")
            yield raw
    except (FileRefused, FileChanged, OverBudget) as error:
        raise BadFile(str(error)) from error
    except OSError as error:
        raise BadFile(f"{display(path)} cannot be read: {error.strerror or error} ({path})") from error


def _unpacked(path: Path, raw: OpenedFile, budget: Budget) -> IO[bytes]:
    compressed = path.suffix.lower() == ".gz"
    if not compressed and reader_of(path)[0] is parquet_rows:
        return raw
    return unpacked(raw, budget, size=raw.size, compressed=compressed, name=display(path))


def _on_disk(file: IO[bytes]) -> IO[bytes]:
    """A copy of what can only be read from its beginning; it is gone as soon as it is closed."""
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - the reader's, for as long as it reads
    shutil.copyfileobj(file, copy)
    return copy


def reader_of(path: Path) -> tuple[Callable[[Any, str, Budget], Rows], str]:
    """How the file is read, by its name without ``.gz``, and what its rows are counted in."""
    found = READERS.get(_plain(path).suffix.lower())
    if found is None:
        raise BadFile(
            f"{display(path)} is of no known kind: its name must end in {', '.join(READERS)} (or that and .gz)"
        )
    return found


def column_names(found: Iterable[str], longest: int = 1000) -> list[str]:
    """Names that a database keeps apart (it may ignore case, and cut after ``longest`` bytes), in the same order."""
    names: list[str] = []
    taken: set[str] = set()
    repetitions: dict[str, int] = {}
    for position, text in enumerate(found, start=1):
        wanted = " ".join(re.sub(r"[\x00-\x1f\x7f]", " ", text[:longest]).split()) or f"column_{position}"
        name = _cut(wanted, longest)
        key = name.casefold()
        while name.casefold() in taken:
            repetitions[key] = repetitions.get(key, 1) + 1
            name = _cut(wanted, longest - len(f"_{repetitions[key]}")) + f"_{repetitions[key]}"
        taken.add(name.casefold())
        names.append(name)
    return names


def display(path: Path) -> str:
    """The file's name as it can be shown and stored, whatever bytes it has."""
    return visible(_name(path))


def _name(path: Path) -> str:
    return path.name.encode(errors="surrogateescape").decode(errors="replace")


def _plain(path: Path) -> Path:
    return path.with_suffix("") if path.suffix.lower() == ".gz" else path


def _cut(text: str, longest: int) -> str:
    return text.encode()[:longest].decode(errors="ignore")


def _delimiter(sample: str) -> str:
    def score(delimiter: str) -> tuple[float, int]:
        records = [record for record in islice(csv.reader(io.StringIO(sample), delimiter=delimiter), 50) if record]
        width = len(records[0]) if records else 0
        return (sum(len(record) == width for record in records) / len(records) if width > 1 else 0.0), width

    return max(",;\t|", key=score)


def _parse(text: str, name: str, first_line: int) -> Any:
    def refuse(constant: str) -> None:
        raise json.JSONDecodeError(f"{constant} is not a number", text, text.index(constant))

    try:
        return json.loads(text, parse_float=Decimal, parse_constant=refuse)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise BadFile(f"{name}, line {line}, character {error.colno}: not JSON ({error.msg})") from error
    except ValueError as error:  # a number of thousands of digits
        raise BadFile(f"{name}, line {first_line}: not JSON ({error})") from error


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadFile(f'{where}: a row must be a JSON object like {{"name": "value"}}, not {str(value)[:40]!r}')
    return value


def _undecodable(path: Path, budget: Budget) -> str:
    with opened(path, budget) as raw:
        file = _unpacked(path, raw, budget)
        for number, line in enumerate(iter(lambda: file.readline(budget.line_bytes), b""), start=1):
            if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
                return " is UTF-16"
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return f", line {number}: byte 0x{line[error.start]:02X} is not UTF-8"
    return " is not UTF-8"


# ------------------------------------------------------------------------------------------------------------ the flow


@dataclass(frozen=True, slots=True)
class Inspected:
    """What reading the file once has told."""

    rows: int
    kinds: dict[str, Kind | None]
    """Per column, in order; None: it is empty in every row."""
    version: str
    digest: str
    """SHA-256 of the content."""


@task(cache_policy=NO_CACHE)
def inspect_file(path: Path, budget: Budget = BUDGET) -> Inspected:
    """Read the file through: how many rows it has and the narrowest kind for each column."""
    kind_of = kind_of_text if reader_of(path)[0] is csv_rows else kind_of_value
    with opened(path, budget) as file:
        version, digest = file.version, hashlib.file_digest(file, "sha256").hexdigest()
    rows, kinds = 0, dict[str, Kind | None]()
    name = display(path)
    with open_rows(path, budget) as found:
        for _, row in found:
            rows += 1
            for column, value in row.items():
                known = kinds.setdefault(column, None)
                if value is not None and known != "text":
                    kinds[column] = wider(known, kind_of(value))
            if len(kinds) > budget.columns:
                budget.exceeded("columns", f"{name} has more than {budget.columns} columns")
            if rows > budget.rows:
                budget.exceeded("rows", f"{name} has more than {budget.rows} rows")
            if rows * len(kinds) > budget.cells:
                budget.exceeded("cells", f"{name} has more than {budget.cells} values")
    return Inspected(rows, kinds, version, digest)


def _worth_another_try(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    return isinstance(state.data, DBAPIError)  # a lock, a lost connection, two loads that create the same table


@task(
    retries=3,
    retry_delay_seconds=exponential_backoff(1),
    retry_jitter_factor=0.5,
    retry_condition_fn=_worth_another_try,
    cache_policy=NO_CACHE,
)
def load_rows(
    path: Path, inspected: Inspected, table: str, url: str, *, outside: bool = False, budget: Budget = BUDGET
) -> list[dict[str, Any]] | None:
    """Load all rows in one transaction; answers the table's columns, or None if this version was loaded before.

    ``outside`` says that the table's name was made of the file's: see `sluice.claim_table`.
    """
    engine = connect(url)
    try:
        with engine.begin() as connection:
            LEDGER.create(connection, checkfirst=True)
            if inspected.rows:
                claim_table(connection, table, flow=FLOW, outside=outside)
            if not _claim(connection, path, inspected, table):
                return None
            columns = _insert(connection, path, inspected, table, budget) if inspected.rows else []
            with opened(path, budget) as file:
                if file.version != inspected.version:
                    raise BadFile(f"{display(path)} was changed while it was being loaded; nothing of it was kept")
            return columns
    except TableRefused as error:
        raise BadFile(f"{display(path)}: {error}") from error
    finally:
        engine.dispose()


def connect(url: str) -> sa.Engine:
    """The database; a SQLite file is made fit for several loads at once and for CREATE TABLE inside a transaction."""
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() != "sqlite":
            return sa.create_engine(parsed, hide_parameters=True)
        Path(parsed.database or "").parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(parsed, hide_parameters=True, connect_args={"timeout": SQLITE_WAIT_SECONDS})
    except (SQLAlchemyError, ImportError) as error:
        raise ValueError(f"the database URL (SLUICE_DATABASE_URL) cannot be used: {error}") from error

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        for attempts_left in reversed(range(50)):  # SQLite does not wait for others who change the mode of a new file
            try:
                connection.execute("PRAGMA journal_mode=WAL")  # those who read do not hold up a load, nor it them
                break
            except sqlite3.OperationalError:
                if not attempts_left:
                    raise
                time.sleep(0.05)

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # the driver itself would begin only after CREATE TABLE

    return engine


def _claim(connection: sa.Connection, path: Path, inspected: Inspected, table: str) -> bool:
    identity = json.dumps([table, inspected.version, inspected.digest]).encode()
    key = hashlib.sha256(identity).hexdigest()
    if connection.scalar(sa.select(LEDGER.c.load_key).where(LEDGER.c.load_key == key)):
        return False
    entry = {"load_key": key, "table_name": table, "file": _name(path), "version": inspected.version}
    connection.execute(sa.insert(LEDGER), entry | {"loaded_at": datetime.now(UTC).isoformat()})
    return True


def _columns(connection: sa.Connection, path: Path, inspected: Inspected, name: str) -> tuple[sa.Table, list[Kind]]:
    """The table and the kinds of its columns that the file's columns go to; it is created if it is not there."""
    names = column_names(inspected.kinds, connection.dialect.max_identifier_length)
    inspector = sa.inspect(connection)
    if not inspector.has_table(name):
        kinds = [kind or "text" for kind in inspected.kinds.values()]
        columns = [sa.Column(column, TYPES[kind]) for column, kind in zip(names, kinds, strict=True)]
        table = sa.Table(name, sa.MetaData(), *columns)
        table.create(connection)
        return table, kinds
    there = {column["name"].casefold(): column for column in inspector.get_columns(name)}
    unknown = [column for column in names if column.casefold() not in there]
    if unknown:
        raise BadFile(
            f"{display(path)} has the columns {unknown}, which the table {name} lacks"
            f" (it has {[column['name'] for column in there.values()]}): add them, or load into another table"
        )
    found = [there[column.casefold()] for column in names]
    kinds = [_kind_of_type(column["type"]) for column in found]
    columns = [sa.Column(column["name"], TYPES[kind]) for column, kind in zip(found, kinds, strict=True)]
    return sa.Table(name, sa.MetaData(), *columns), kinds


def _kind_of_type(type_: TypeEngine[Any]) -> Kind:
    kinds = ((sa.Boolean, "boolean"), (sa.Integer, "integer"), (sa.Float, "real"), (sa.LargeBinary, "bytes"))
    return next((kind for class_, kind in kinds if isinstance(type_, class_)), "other")


def _insert(
    connection: sa.Connection, path: Path, inspected: Inspected, name: str, budget: Budget
) -> list[dict[str, Any]]:
    read, unit = reader_of(path)
    kind_of = kind_of_text if read is csv_rows else kind_of_value
    table, kinds = _columns(connection, path, inspected, name)
    plan = [
        # A column that does not take the file's values as they are is searched for the first one that does not fit.
        (key, f"c{position}", kind, CONVERT[kind], not takes(kind, inspected.kinds[key] or kind))
        for position, (key, kind) in enumerate(zip(inspected.kinds, kinds, strict=True))
    ]
    empty = dict.fromkeys(inspected.kinds, 0)
    statement = sa.insert(table).values(
        {column: sa.bindparam(parameter) for column, (_, parameter, *_) in zip(table.columns, plan, strict=True)}
    )

    def converted(place: int, row: Mapping[str, Any]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, parameter, kind, convert, search in plan:
            value = row.get(key)
            if value is None:
                empty[key] += 1
                values[parameter] = None
                continue
            try:
                if search and not takes(kind, kind_of(value)):
                    raise ValueError(f"is not {kind}, as that column of the table {name} is")  # noqa: TRY301
                values[parameter] = convert(value)
            except ValueError as error:
                where = f"{display(path)}, {unit} {place}, column {key!r}"
                raise BadFile(f"{where}: {str(value)[:60]!r} {error}") from error
        return values

    with open_rows(path, budget) as rows:
        for batch in _batches(((place, converted(place, row)) for place, row in rows), len(plan)):
            try:
                connection.execute(statement, [values for _, values in batch])
            except (IntegrityError, DataError) as error:
                where = f"{display(path)}, {unit}s {batch[0][0]} to {batch[-1][0]}"
                raise BadFile(f"{where}: the database refuses a row: {str(error.orig).strip()}") from error
    return [
        {"column": column.name, "holds": "integer" if kind == "long" else kind, "empty values": empty[key]}
        for column, (key, _, kind, *_) in zip(table.columns, plan, strict=True)
    ]


def _batches(rows: Iterable[tuple[int, dict[str, Any]]], columns: int) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    """As many rows at a time as are worth a statement and fit into memory."""
    most = max(1, min(BATCH_ROWS, BATCH_CELLS // max(1, columns)))
    batch: list[tuple[int, dict[str, Any]]] = []
    weight = 0
    for row in rows:
        batch.append(row)
        weight += sum(len(value) for value in row[1].values() if isinstance(value, str | bytes))
        if len(batch) >= most or weight >= BATCH_BYTES:
            yield batch
            batch, weight = [], 0
    if batch:
        yield batch


@flow(name=FLOW)
def ingest_file(
    path: str,
    table: str | None = None,
    database_url: str | None = None,
    budget: Budget = BUDGET,
    reserved_tables: tuple[str, ...] = RESERVED_TABLES,
) -> State[dict[str, Any]]:
    """Load the rows of one file into a table, all of them or none.

    The file's name ends in .csv, .tsv, .txt, .json, .jsonl, .ndjson or .parquet, or in one of these and .gz. The table
    is named after the file where no name is given, and created where there is none. The database is any that
    SQLAlchemy knows; without a URL it is ``SLUICE_DATABASE_URL``, or SQLite in ``data.db`` of ``SLUICE_HOME``.
    ``budget`` raises or lowers what one file may cost. No file's name leads to ``reserved_tables``:
    those of other flows, which may not be there yet.
    """
    started = time.perf_counter()
    file = Path(path)
    name = table or table_name(file)
    home = Path(os.environ.get("SLUICE_HOME", ".sluice")).resolve()
    url = database_url or os.environ.get("SLUICE_DATABASE_URL") or f"sqlite:///{home / 'data.db'}"
    if table is None and table_key(name) in {table_key(one) for one in reserved_tables}:
        error = BadFile(f"{display(file)}: the table {name!r} is kept for another flow (reserved_tables)")
        return Failed(message=visible(str(error), lines=True), data=error)
    try:
        inspected = inspect_file(file, budget)
        columns = load_rows(file, inspected, name, url, outside=table is None, budget=budget)
    except BadFile as error:
        return Failed(message=visible(str(error), lines=True), data=error)
    except DBAPIError as error:
        return Failed(
            message=visible(f"{display(file)} was not loaded into {name}: {str(error.orig).strip()}", lines=True),
            data=error,
        )
    summary: dict[str, Any] = {"file": display(file), "table": name, "rows": inspected.rows}
    if columns is None:
        message = f"{display(file)} is in the table {name} already: nothing to do"
        return Completed(message=message, data=summary | {"rows": 0})
    _publish(summary | {"columns": len(columns), "seconds": round(time.perf_counter() - started, 3)}, columns)
    message = f"{_many(inspected.rows, 'row')} of {display(file)} loaded into the table {name}"
    get_run_logger().info(message)
    return Completed(message=message, data=summary)


def table_name(path: Path) -> str:
    """A table's name made of the file's: ``Orders 2026-03.csv.gz`` goes to ``orders_2026_03``.

    It differs where the files' names do, and no database cuts it.
    """
    name = re.sub(r"\W+", "_", unicodedata.normalize("NFKC", _name(_plain(path).with_suffix("")))).strip("_").lower()
    name = name or "data"
    if name.startswith(RESERVED):
        name = f"t_{name}"
    if len(name.encode()) > LONGEST_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        name = f"{_cut(name, LONGEST_NAME - 9)}_{digest}"
    return name


def _publish(summary: Mapping[str, Any], columns: list[dict[str, Any]]) -> None:
    slug = re.sub(r"[^a-z0-9]+", "-", f"ingest-{summary['table']}".lower()).strip("-")
    facts = [f"| {fact} | {in_markdown(value)} |" for fact, value in summary.items()]
    markdown = "\n".join(["| load | |", "| --- | --- |", *facts])
    create_markdown_artifact(markdown, key=slug, description="What was loaded")
    create_table_artifact(
        [_visible(column) for column in columns],
        key=f"{slug}-columns",
        description=f"The columns of {summary['table']}",
    )


def _visible(column: Mapping[str, Any]) -> dict[str, Any]:
    return {what: visible(value) if isinstance(value, str) else value for what, value in column.items()}


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


if __name__ == "__main__":
    import sys

    ingest_file(sys.argv[1])
