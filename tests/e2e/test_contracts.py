"""Contracts in a whole installation: the wait for an approval; personal data and secrets, looked for everywhere."""

from __future__ import annotations

import io
import json
import re
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import httpx
import pyarrow as pa
import pyarrow.parquet
import pytest
import redis

from demo.every_flow import SECRETS, web_server
from tests.e2e.test_whole_path import drop, ended, paused, run_named
from tests.support.installation import Installation
from tests.unit.sluice.loading.spreadsheets import row, text, write_xlsx
from tests.unit.sluice.loading.test_masked_load import PLANTED, TRACES

pytestmark = pytest.mark.timeout(600)

APPROVED: Final = """\
path: reading-*.csv
dialect: {delimiter: ","}
schema:
  fields:
    - {name: city, type: string, constraints: {required: true}}
    - {name: degrees, type: number, constraints: {minimum: -90}}
sluice: {table: readings, on_bad_rows: approve, max_bad_share: 0.1}
"""
READINGS: Final = "city,degrees\nOslo,4.5\nRome,-100\nBari,x\n"

WIDTHS: Final = {"id": 4, "mail": 26, "phone": 18, "iban": 24, "tax": 14, "name": 18}
MASKED: Final = """\
path: "{path}"
{more}
schema:
  fields:
    - {{name: id, type: integer, constraints: {{required: true}}{id}}}
    - {{name: mail, type: string, mask: {{kind: email}}{mail}}}
    - {{name: phone, type: string, mask: {{kind: phone}}{phone}}}
    - {{name: iban, type: string, constraints: {{maxLength: 22}}, mask: {{kind: partial}}{iban}}}
    - {{name: tax, type: integer, mask: {{kind: hmac}}{tax}}}
    - {{name: name, type: string, mask: {{kind: drop}}{name}}}
sluice: {{table: people_{format}, on_bad_rows: {on_bad_rows}{rules}}}
"""

Rows = list[dict[str, str]]


def contracts_of(installation: Installation) -> Path:
    """The folder of the default project's contracts: beside the home."""
    folder = installation.home.parent / "contracts"
    folder.mkdir(exist_ok=True)
    return folder


def query(installation: Installation, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(installation.home / "data.db")) as database:
        return database.execute(sql).fetchall()


@pytest.mark.parametrize("approved", [True, False])
def test_a_file_with_many_bad_rows_waits_without_a_process_until_somebody_answers(
    installation: Installation, inbox: Path, approved: bool
) -> None:
    (contracts_of(installation) / "readings.yaml").write_text(APPROVED)
    name = f"reading-{approved}.csv"
    drop(inbox, name, READINGS)
    run = run_named(installation, "ingest-file", name)
    paused(installation, "ingest-file", run["id"])
    (waiting,) = installation.runs("ingest-file", id={"any_": [run["id"]]})
    key = f"load-{name}-{run['id'][:8]}"
    assert f"awaits:{key}" in waiting["tags"]
    (page,) = [one["data"] for one in installation.artifacts(run["id"]) if str(one["key"]).startswith("bad-rows-")]
    assert "2 of 3 rows" in page
    assert (inbox / name).exists()
    answer = json.dumps({"approved": approved, "by": "ada"})
    installation.sluice("signals", "send", "--key", key, "--input", answer)
    end = ended(installation, "ingest-file", run["id"])
    rejected = inbox / "rejected" / f"{name}.rejected.csv"
    if approved:
        assert end["message"] == f"1 row of {name} loaded into the table readings, 2 bad rows put into {rejected.name}"
        assert query(installation, "SELECT city, degrees FROM readings") == [("Oslo", 4.5)]
        assert len(rejected.read_text().splitlines()) == 3
        installation.until((inbox / "done" / name).exists, "the file is put away")
    else:
        assert (end["type"], "refused by ada" in end["message"]) == ("FAILED", True)
        installation.until((inbox / "failed" / name).exists, "the file is put away")
        assert not rejected.exists()


def delimited(rows: Rows) -> bytes:
    return "".join(",".join(one) + "\n" for one in [list(rows[0]), *(list(one.values()) for one in rows)]).encode()


def fixed_width(rows: Rows) -> bytes:
    lines = ["".join(value.ljust(WIDTHS[name]) for name, value in one.items()).rstrip() for one in rows]
    return "\n".join(["".join(name.ljust(width) for name, width in WIDTHS.items()).rstrip(), *lines, ""]).encode()


def json_document(rows: Rows) -> bytes:
    return json.dumps(rows).encode()


def xml(rows: Rows) -> bytes:
    found = ("".join(f"<{name}>{value}</{name}>" for name, value in one.items()) for one in rows)
    return f"<people>{''.join(f'<row>{one}</row>' for one in found)}</people>".encode()


def parquet(rows: Rows) -> bytes:
    written = io.BytesIO()
    pa.parquet.write_table(pa.Table.from_pylist(rows), written)
    return written.getvalue()


def excel(rows: Rows) -> bytes:
    written = io.BytesIO()
    cells = [row(*(text(value) for value in one)) for one in [list(rows[0]), *(list(one.values()) for one in rows)]]
    write_xlsx(written, {"people": "".join(cells)})
    return written.getvalue()


WRITERS: Final[dict[str, Callable[[Rows], bytes]]] = {
    "csv": delimited,
    "fwf": fixed_width,
    "json": json_document,
    "xml": xml,
    "parquet": parquet,
    "xlsx": excel,
}


def test_personal_data_is_nowhere_but_in_the_file_itself(installation: Installation, inbox: Path) -> None:
    good = {"id": "1", **PLANTED}
    bad = [
        {**good, "id": "x2"},
        {**good, "id": "3", "tax": "86095742719x"},
        {**good, "id": "4", "iban": PLANTED["iban"] + "9"},
    ]
    dropped = []
    for ending, write in WRITERS.items():
        for on_bad_rows in ("quarantine", "refuse", "approve"):
            name = f"people-{on_bad_rows}-{ending}.{ending}"
            said = dict.fromkeys(WIDTHS, "") | (
                {field: f", width: {width}" for field, width in WIDTHS.items()} if ending == "fwf" else {}
            )
            contract = MASKED.format(
                path=name,
                more='dialect: {delimiter: ","}' if ending == "csv" else "",
                format=ending,
                on_bad_rows=on_bad_rows,
                rules=", row_tag: row" if ending == "xml" else "",
                **said,
            )
            (contracts_of(installation) / f"{name}.yaml").write_text(contract)
            drop(inbox, name, write([good, *bad]))
            dropped.append((name, on_bad_rows, ending))
    for name, on_bad_rows, ending in dropped:
        run = run_named(installation, "ingest-file", name)
        if on_bad_rows == "approve":
            paused(installation, "ingest-file", run["id"])
            answer = {"key": f"load-{name}-{run['id'][:8]}", "input": {"approved": True}}
            installation.redis.xadd("sluice.resume", {"event": json.dumps(answer)})
        end = ended(installation, "ingest-file", run["id"])
        assert end["type"] == ("FAILED" if on_bad_rows == "refuse" else "COMPLETED"), (name, end["message"])
        put_away = inbox / ("failed" if on_bad_rows == "refuse" else "done") / name
        installation.until(put_away.exists, f"{name} is put away")
        assert put_away.read_bytes()
        if on_bad_rows == "quarantine":
            (found,) = query(installation, f"SELECT mail, phone, iban, length(tax) FROM people_{ending}")[:1]
            assert found == ("***@example.org", "+49 *** 21", "***2051", 64)
        if ending == "csv":  # of every kind of file, the logs, artifacts and states are in Prefect's database
            look_everywhere(installation, inbox, run["id"])
    places = look_everywhere(installation, inbox, None)
    assert {"rejected", "failed", "redis", "data.db", "prefect.db"} <= places


def test_a_secret_that_runs_use_is_nowhere(installation: Installation, inbox: Path) -> None:
    """The webhook repeats its token, once to a run that does well and once to one that fails."""
    name = "webhook_url_development"
    with web_server() as address:
        for path, ended_as in (("hook", "COMPLETED"), ("refuses", "FAILED")):
            said = installation.prefect.delete(f"/variables/name/{name}")
            assert said.status_code in {204, 404}
            made = installation.prefect.post("/variables/", json={"name": name, "value": f"{address}/{path}"})
            made.raise_for_status()
            text = ("-p", f"text=told to {path}")
            answer = installation.sluice("runs", "start", "notify-webhook", *text, "--watch", "--json", check=False)
            run = json.loads(answer.stdout)
            assert run["state_type"] == ended_as, run
            lines = installation.sluice("runs", "logs", run["id"]).stdout
            assert "you sent Bearer ********" in lines  # so the secret was there to be taken out
            assert not [trace for trace in SECRETS.values() if trace in lines + answer.stdout + answer.stderr]
    installation.prefect.delete(f"/variables/name/{name}").raise_for_status()
    installation.redis.xadd("sluice.events", {"event": "not json"})
    installation.until(lambda: installation.sluice("dead", "list", "--json").stdout != "[]\n", "there is a dead letter")
    look_everywhere(installation, inbox, None, traces=SECRETS.values())
    for kind in ("flow_runs", "task_runs", "logs", "artifacts", "variables", "events"):
        found = installation.prefect.post(f"/{kind}/filter", json={"limit": 50 if kind == "events" else 200})
        assert found.is_success, found.text
        assert not [trace for trace in SECRETS.values() if trace in found.text], kind
    token = {"Authorization": f"Bearer {installation.access['SLUICE_API_TOKEN']}"}
    metrics = httpx.get(f"{installation.access['SLUICE_API_URL']}/metrics", headers=token)
    assert metrics.is_success
    assert not [trace for trace in SECRETS.values() if trace in metrics.text]


def look_everywhere(
    installation: Installation, inbox: Path, run_id: str | None, *, traces: Iterable[str] = TRACES
) -> set[str]:
    """Fail where something that was planted is in clear; answers what was looked through."""
    looked: dict[str, list[bytes]] = {"output": [installation.output.read_bytes()]}
    if run_id is not None:
        looked["artifacts"] = [json.dumps(installation.artifacts(run_id)).encode()]
        looked["logs"] = [installation.sluice("runs", "logs", run_id).stdout.encode()]
        looked["states"] = [json.dumps(installation.runs("ingest-file", id={"any_": [run_id]})).encode()]
    else:
        looked |= files_of(installation, inbox)
        looked["redis"] = values_of(installation)
        looked["dead letters"] = [installation.sluice("dead", "list", "--json").stdout.encode()]
    for where, contents in looked.items():
        for content in contents:
            for trace in traces:
                assert trace.encode() not in content, f"{trace} is in {where}: {around(content, trace)!r}"
    return set(looked)


def files_of(installation: Installation, inbox: Path) -> dict[str, list[bytes]]:
    """Everything on disk but the dropped files themselves, by the name of a file or of the folder beside `done`."""
    found: dict[str, list[bytes]] = {}
    for path in installation.home.parent.rglob("*"):
        is_dropped = re.fullmatch(r"people-\w+-(\w+)\.\1(?:~\d+)?", path.name)
        if not path.is_file() or is_dropped:
            continue
        key = path.relative_to(inbox).parts[0] if path.is_relative_to(inbox) else path.name
        found.setdefault(key, []).append(path.read_bytes())
    return found


def values_of(installation: Installation) -> list[bytes]:
    """All keys in Redis with what is in them, which the file on disk may have packed."""
    read: dict[bytes, Callable[[bytes], Any]] = {}
    with redis.Redis.from_url(installation.access["SLUICE_REDIS_URL"] or "") as client:
        read = {
            b"string": client.get,
            b"hash": client.hgetall,
            b"list": lambda key: client.lrange(key, 0, -1),
            b"set": client.smembers,
            b"zset": lambda key: client.zrange(key, 0, -1),
            b"stream": client.xrange,
            b"none": lambda _: None,
        }
        return [repr((key, read[client.type(key)](key))).encode() for key in client.scan_iter(count=1000)]


def around(content: bytes, trace: str) -> bytes:
    at = content.find(trace.encode())
    return content[max(0, at - 200) : at + 100]
