"""The lines of the roles: in files that do not grow for ever, and in one form where `sluice up` writes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.settings import LogSettings
from services.local.embedded_servers import Server
from services.local.output import role_logs
from services.local.output.role_logs import RoleLogs


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[RoleLogs]:
    settings = LogSettings(format="json", max_file_bytes=10_000, old_files=2)
    yield (started := RoleLogs(tmp_path / "logs", settings).start())
    started.close()


def write(path: Path | None, text: str) -> None:
    assert path is not None
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)  # as the start template does
    os.write(descriptor, text.encode())
    os.close(descriptor)


def read(tmp_path: Path, name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (tmp_path / "logs" / name).read_text().splitlines()]


def test_a_line_goes_to_the_file_of_its_role_and_to_the_terminal(
    logs: RoleLogs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(
        logs.pipe("router"), '{"event": "decided", "role": "router"}\nFatal Python error: redis://:s3cret@host\x1b[2J\n'
    )
    write(logs.pipe("api"), "without an end")
    logs.stream().write('{"event": "process ended"}\n')
    logs.close()
    decided, fatal = read(tmp_path, "router.log")
    assert decided == {"event": "decided", "role": "router"}
    assert fatal["event"] == "Fatal Python error: redis://:***@host\\x1b[2J"
    assert (fatal["role"], fatal["logger"]) == ("router", "output")
    assert read(tmp_path, "supervisor.log") == [{"event": "process ended"}]
    said = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert sorted(said) == sorted(["decided", fatal["event"], "process ended", "without an end"])


def test_files_are_renamed_when_they_are_full_and_the_oldest_goes(logs: RoleLogs, tmp_path: Path) -> None:
    pipe = logs.pipe("router")
    for number in range(60):
        write(pipe, json.dumps({"event": "x" * 900, "number": number}) + "\n")
    logs.close()
    names = sorted(path.name for path in (tmp_path / "logs").iterdir())
    assert names == ["router.log", "router.log.1", "router.log.2"]
    assert all((tmp_path / "logs" / name).stat().st_size <= 10_000 for name in names)
    assert read(tmp_path, "router.log")[-1]["number"] == 59


def test_what_a_server_appends_to_is_emptied_and_the_server_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    with (folder / "prefect.log").open("a") as server:
        for text in ("first", "second", "third"):
            server.write(text + "." * 10_000)
            server.flush()
            logs = RoleLogs(folder, LogSettings(max_file_bytes=10_000, old_files=2)).start()
            logs.close()
        server.write("last")
    assert (folder / "prefect.log").read_text() == "last"
    assert [(folder / f"prefect.log.{number}").read_text()[:6] for number in (1, 2)] == ["third.", "second"]


def test_a_terminal_is_shown_lines_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs = RoleLogs(tmp_path / "logs", LogSettings(format="console")).start()
    write(logs.pipe("router"), '{"event": "decided", "rule": "pay\\u202e", "level": "info"}\n')
    logs.close()
    shown = capsys.readouterr().err
    assert "decided" in shown
    assert "u202e" in shown
    assert "{" not in shown
    assert role_logs.SUPERVISOR not in shown


def test_a_process_that_no_template_forked_writes_into_its_pipe(logs: RoleLogs, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import os; os.write(1, b'out'); os.write(2, b'err\\n')"]
    server = Server("role api", command, log_file=logs.pipe("api"), env=os.environ)
    server.process.wait()
    logs.close()
    assert [line["event"] for line in read(tmp_path, "api.log")] == ["outerr"]


def test_lines_of_a_start_are_held_back_and_warnings_are_not(
    logs: RoleLogs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.hold()
    stream = logs.stream()
    stream.write('{"event": "role started", "level": "info"}\n{"event": "slow", "level": "warning"}\n')
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["slow"]
    assert [line["event"] for line in read(tmp_path, "supervisor.log")] == ["role started", "slow"]
    logs.show()
    stream.write('{"event": "decided", "level": "info"}\n')
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["role started", "decided"]


def test_what_was_held_back_is_shown_at_the_end_of_a_start_that_fails(
    logs: RoleLogs, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.hold()
    logs.stream().write('{"event": "role started", "level": "info"}\n')
    logs.close()
    assert "role started" in capsys.readouterr().err
