"""The everyday practices, as a flow's author would test them: against a real Prefect and real servers."""

from __future__ import annotations

import gzip
import json
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet as pq
import pytest
from prefect.blocks.system import Secret
from prefect.client.orchestration import SyncPrefectClient
from prefect.variables import Variable

from flows.csv_to_parquet import csv_to_parquet
from flows.folder_report import folder_report
from flows.health_check import health_check
from flows.load_measurements import load_measurements, store
from flows.notify_webhook import notify_webhook
from flows.resilient_fetch import resilient_fetch
from services.local.embedded_servers import claim_port

pytestmark = pytest.mark.usefixtures("prefect_url")
Artifacts = Callable[[Any], dict[str | None, Any]]
Logs = Callable[[Any], list[str]]


class Handler(BaseHTTPRequestHandler):
    """Answers with the next of the planned statuses (200 when there are none) and remembers what it was asked."""

    planned: ClassVar[list[int]] = []
    asked: ClassVar[list[tuple[str | None, bytes]]] = []

    def do_GET(self) -> None:
        authorization = self.headers.get("Authorization")
        self.asked.append((authorization, self.rfile.read(int(self.headers.get("Content-Length", 0)))))
        body = f"you sent {authorization}".encode()
        self.send_response(self.planned.pop(0) if self.planned else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - the server's names

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    Handler.planned.clear()
    Handler.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/file.txt"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_fetch_outlasts_a_server_that_fails_for_a_moment(web: str, home: Path) -> None:
    Handler.planned += [503, 429]
    state = resilient_fetch(web, first_pause_seconds=0.01, return_state=True)
    assert state.is_completed()
    assert len(Handler.asked) == 3
    assert [path.name for path in (home / "fetched").iterdir()] == ["file.txt"]


def test_what_the_server_will_never_give_is_not_asked_for_again(web: str, home: Path) -> None:
    Handler.planned += [404]
    state = resilient_fetch(web, first_pause_seconds=0.01, return_state=True)
    assert "answered 404 Not Found: not tried again" in str(state.message)
    assert len(Handler.asked) == 1
    assert list((home / "fetched").iterdir()) == []


def test_a_report_reads_again_only_what_has_changed(tmp_path: Path, artifacts: Artifacts, logs: Logs) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.csv").write_text("x,y\n1,\n2,3\n")
    (tmp_path / "broken.csv").write_bytes(b"x\n\xff\n")
    first = folder_report(str(tmp_path), return_state=True)
    assert first.message == "3 files reported on, 1 not readable"
    assert artifacts(first)["folder-report-files"][0] == {"file": "a.csv", "columns": 2, "rows": 2, "empty fields": 1}
    assert "broken.csv" in artifacts(first)["folder-report"]

    (tmp_path / "broken.csv").unlink()
    (tmp_path / "b.csv").write_text("x,y\n1,2\n")
    second = folder_report(str(tmp_path), return_state=True)
    assert second.message == "3 files reported on"
    read = [line for line in logs(second) if line.startswith("read ")]
    assert read == [f"read {tmp_path / 'b.csv'}: 1 rows"]


@pytest.mark.parametrize("name", ["big.csv", "big.csv.gz"])
def test_a_conversion_keeps_values_as_they_are_written_and_shows_its_progress(
    tmp_path: Path, artifacts: Artifacts, name: str
) -> None:
    content = ("code,note\n" + "007,\n" * 1000 + '1.10,"a\nb"\n').encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    state = csv_to_parquet(str(tmp_path / name), return_state=True)
    assert state.message == f"1001 rows of {name} are in big.parquet"
    table = pq.read_table(tmp_path / "big.parquet")
    assert set(table.column("code").to_pylist()) == {"007", "1.10"}
    assert table.column("note").to_pylist()[-1] == "a\nb"
    assert list(artifacts(state).values()) == [100.0]


@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r"])
def test_a_conversion_loses_no_byte_where_a_value_goes_over_the_edge_of_a_piece(tmp_path: Path, end: bytes) -> None:
    lines = [b"id,s,p"]
    length = len(lines[0]) + len(end)
    for piece in range(1, 18):  # in each a value whose first line ends with the last byte of a megabyte
        head = b'%07d,"' % piece
        text = b"z" * (piece * 1024 * 1024 - 1 - length - len(head)) + end + b"B"
        lines.append(head + text + b'",x')
        length += len(lines[-1]) + len(end)
    (tmp_path / "x.csv").write_bytes(end.join([*lines, b""]))
    state = csv_to_parquet(str(tmp_path / "x.csv"), return_state=True)
    assert state.is_completed(), state.message
    values = pq.read_table(tmp_path / "x.parquet").column("s").to_pylist()
    assert [value.encode() for value in values] == [line[9:-3] for line in lines[1:]]


def test_a_conversion_that_fails_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n3\n")
    state = csv_to_parquet(str(tmp_path / "x.csv"), return_state=True)
    assert "x.csv, line 3" in str(state.message)
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]


def test_a_secret_reaches_the_webhook_and_no_log_or_state(
    web: str, prefect_url: str, logs: Logs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("SLUICE_ENV", "staging")
    Secret(value="hush-hush").save("webhook-token-staging", overwrite=True)
    Variable.set("webhook_url_staging", web, overwrite=True)
    Handler.planned += [200]
    state = notify_webhook("pump 3 stands still", severity="critical", return_state=True)
    assert state.is_completed()
    assert Handler.asked == [
        ("Bearer hush-hush", b'{"text":"pump 3 stands still","severity":"critical","environment":"staging"}')
    ]
    seen = "\n".join(logs(state))
    assert '"said": "you sent Bearer ********"' in seen
    assert "hush-hush" not in seen + str(state.message) + caplog.text


def test_a_line_for_programs_can_be_searched(web: str, prefect: SyncPrefectClient, logs: Logs) -> None:
    state = notify_webhook("pump 17 stands still", return_state=True)
    (line,) = [json.loads(line) for line in logs(state) if line.startswith("{")]
    assert line == {"event": "webhook not set, message logged only", "text": "pump 17 stands still", "severity": "info"}
    where = {"logs": {"text": {"query": '"pump 17"'}}}
    found = prefect.request("POST", "/logs/filter", json=where).json()
    assert {one["flow_run_id"] for one in found} == {str(state.state_details.flow_run_id)}


def test_without_a_token_the_message_says_where_one_belongs(web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_ENV", "production")
    monkeypatch.delenv("WEBHOOK_TOKEN", raising=False)
    Variable.set("webhook_url_production", web, overwrite=True)
    state = notify_webhook("x", return_state=True)
    assert "create the Secret block webhook-token-production, or set WEBHOOK_TOKEN" in str(state.message)


def test_in_development_a_message_without_a_webhook_is_only_logged(prefect_url: str) -> None:
    assert (
        notify_webhook("x", return_state=True).message == "logged only: the variable webhook_url_development is not set"
    )


def test_a_health_check_names_everything_that_is_not_well(
    home: Path, artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mkdir()
    well = health_check(least_free_gib=0, most_failures=1000, with_sluice=False, return_state=True)
    assert well.message == "4 checks are well"
    assert [check["ok"] for check in artifacts(well)["health"]] == [True] * 4

    monkeypatch.setenv("SLUICE_DATABASE_URL", f"postgresql+psycopg://127.0.0.1:{claim_port(0, 'a port')}/none")
    unwell = health_check(least_free_gib=1e9, most_failures=-1, return_state=True)
    assert unwell.is_failed()
    for said in ("database: ", "at least 1e+09 are wanted", "at most -1 are expected"):
        assert said in str(unwell.message)
    assert "Prefect API" not in str(unwell.message)
    # Nothing is known of an installation that does not run: that is not well either.
    assert f"dead letters: sluice dead list --since 1h --limit 1: nothing runs on {home}" in str(unwell.message)
    assert f"Sluice: nothing runs on {home}" in str(unwell.message)


def test_measurements_of_many_events_are_loaded_by_one_run_and_once(
    home: Path, prefect: SyncPrefectClient, artifacts: Artifacts
) -> None:
    rows = [
        {"sensor": "a", "value": 1.5},
        {"sensor": "a", "value": 3},
        {"anything": ["else"]},
        {"sensor": 7, "value": "x"},
    ]
    state = load_measurements(rows, return_state=True)
    assert state.message == "loaded: measurements 4, sensors 3"
    assert artifacts(state)["measurements"][2] == {"sensor": "a", "events": 2, "least": 1.5, "most": 3.0}
    store.fn(str(state.state_details.flow_run_id), rows)  # as a second attempt of the same run would
    database = sqlite3.connect(home / "data.db")
    found = database.execute("SELECT sensor, value, data FROM measurement_events ORDER BY position").fetchall()
    database.close()
    assert found == [
        ("a", 1.5, '{"sensor": "a", "value": 1.5}'),
        ("a", 3.0, '{"sensor": "a", "value": 3}'),
        (None, None, '{"anything": ["else"]}'),
        ("7", None, '{"sensor": 7, "value": "x"}'),
    ]
