"""Cases 25 to 32 of the catalogue: names, and things that are not files."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import unicodedata
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from services.common.file_version import verify_version
from tests.integration.files.conftest import CALM, Watched
from tests.support.waiting import eventually


@pytest.mark.parametrize(
    "name",
    [
        "two words.csv",
        "line\nbreak.csv",
        "tab\there.csv",
        "🦆 ente.csv",
        "x" * 251 + ".csv",
        "é" * 125 + ".csv",
        "-rf.csv",
        "50%.csv",
        "a\\b.csv",
        '"quoted".csv',
        "{{ 7 * 7 }}.csv",
    ],
)
async def test_case_25_any_name_that_a_file_may_have_is_announced_and_put_away(watched: Watched, name: str) -> None:
    await watched.listen()
    watched.archive()
    (watched.path / name).write_text("x")
    (event,) = await watched.exactly(1)
    assert event["subject"] == event["data"]["name"] == name
    assert Path(event["data"]["path"]).read_text() == "x"
    await watched.finish(event, ok=False)
    await watched.settled()
    moved, sidecar = sorted((watched.path / "failed").iterdir(), key=lambda path: path.name.endswith(".error.json"))
    assert (moved.name, moved.read_text()) == (name, "x")
    assert sidecar.name.startswith(name[:50])


async def test_case_26_a_name_that_is_not_utf_8_is_announced_once_under_a_path_that_opens(watched: Watched) -> None:
    listener = await watched.listen()
    watched.archive()
    root = os.fsencode(watched.path)
    os.mkdir(root + b"/caf\xe9")
    raw = b"caf\xe9/100% \xff.csv"
    with open(root + b"/" + raw, "w") as file:
        file.write("x")
    (event,) = await watched.exactly(1)
    path = event["data"]["path"]
    path.encode("utf-8")
    assert Path(path).read_text() == "x"
    verify_version(path, event["fileversion"])
    assert event["subject"] == "caf%E9/100%25 %FF.csv"
    assert event["data"]["encoding"] == "percent"
    assert urllib.parse.unquote_to_bytes(event["subject"]) == raw

    (watched.path / "ordinary.csv").write_text("x")
    _, second = await watched.exactly(2)
    assert "degraded" not in listener.status()
    await watched.finish(event)
    await watched.finish(second)
    await watched.settled()
    assert Path(os.fsdecode(root + b"/done/" + raw)).read_text() == "x"
    assert not os.path.lexists(path), "the alias goes with its file"


async def test_case_27_names_that_differ_in_normal_form_only_are_two_files(watched: Watched) -> None:
    await watched.listen()
    names = {unicodedata.normalize(form, "é.csv") for form in ("NFC", "NFD")}
    for name in names:
        (watched.path / name).write_text(name)
    if len(list(watched.path.iterdir())) < 2:
        pytest.skip("this file system takes the two normal forms for one name")
    assert {event["subject"] for event in await watched.exactly(2)} == names


async def test_case_28_names_that_differ_in_case_only_are_two_files(watched: Watched) -> None:
    await watched.listen()
    for name in ("A.txt", "a.txt"):
        (watched.path / name).write_text(name)
    if len(list(watched.path.iterdir())) < 2:
        pytest.skip("this file system takes the two names for one")
    assert {event["subject"] for event in await watched.exactly(2)} == {"A.txt", "a.txt"}


async def test_case_29_pipes_sockets_and_devices_are_ignored_and_block_nothing(watched: Watched) -> None:
    os.mkfifo(watched.path / "before.csv")
    await watched.listen()
    os.mkfifo(watched.path / "pipe.csv")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(watched.path / "socket.csv"))
    with contextlib.suppress(PermissionError):  # only root makes devices
        os.mknod(watched.path / "device.csv", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    (watched.path / "file.csv").write_text("x")
    (event,) = await watched.exactly(1)
    assert event["subject"] == "file.csv"


async def test_case_30_a_link_that_leads_out_of_the_watch_is_refused_and_logged(
    watched: Watched, outside: Path
) -> None:
    (outside / "secret.csv").write_text("x")
    (watched.path / "before.csv").symlink_to(outside / "secret.csv")
    (watched.path / "directory").symlink_to(outside)
    with structlog.testing.capture_logs() as lines:
        listener = await watched.listen()
        (watched.path / "link.csv").symlink_to(outside / "secret.csv")
        (watched.path / "up.csv").symlink_to("../outside/secret.csv")
        (outside / "later.csv").write_text("x")
        (watched.path / "real.csv").write_text("x")
        (event,) = await watched.exactly(1)
    assert event["subject"] == "real.csv"
    refused = {line["file"]: line["reason"] for line in lines if line["event"] == "symbolic link refused"}
    assert refused.keys() >= {"before.csv", "link.csv", "up.csv"}
    assert set(refused.values()) == {"it leads out of the watch"}
    assert listener.status()["links_refused"] >= 3


async def test_case_30_a_link_that_is_put_in_a_files_place_is_not_followed(watched: Watched, outside: Path) -> None:
    await watched.listen(quiet_ms=300)
    (outside / "secret.csv").write_text("x")
    (watched.path / "a.csv").write_text("x")
    (watched.path / "link").symlink_to(outside / "secret.csv")
    (watched.path / "link").rename(watched.path / "a.csv")
    await watched.exactly(0)


async def test_case_31_a_scan_ends_in_spite_of_a_loop_of_links(watched: Watched) -> None:
    (watched.path / "a").mkdir()
    (watched.path / "a" / "loop").symlink_to(watched.path)
    (watched.path / "a" / "self").symlink_to("self")
    await watched.listen()
    (watched.path / "a" / "x.csv").write_text("x")
    (event,) = await watched.exactly(1)
    assert event["subject"] == "a/x.csv"
    (watched.path / "new").mkdir()
    (watched.path / "new" / "y.csv").write_text("x")
    await watched.exactly(2)


async def test_case_32_a_hard_link_is_announced_once(watched: Watched, outside: Path) -> None:
    watched.settings = CALM
    (outside / "a.csv").write_text("x")
    await watched.listen()
    os.link(outside / "a.csv", watched.path / "a.csv")
    (event,) = await watched.exactly(1)
    assert Path(event["data"]["path"]).read_text() == "x"


async def test_globs_choose_by_name_at_any_depth_or_by_path(watched: Watched) -> None:
    await watched.listen(include=["*.csv", "in/**/*.json"], exclude=["skip/**", "*secret*"])
    for name in (
        "a.csv", "sub/b.csv", "c.txt", "in/d.json", "in/x/y/e.json", "f.json", "skip/g.csv", "skip/h/i.csv",
        "my secret.csv", ".hidden.csv", ".git/j.csv",
    ):  # fmt: skip
        path = watched.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    subjects = {event["subject"] for event in await watched.exactly(4)}
    assert subjects == {"a.csv", "sub/b.csv", "in/d.json", "in/x/y/e.json"}


async def test_a_watch_that_is_not_recursive_takes_its_own_files_only(watched: Watched) -> None:
    await watched.listen(recursive=False)
    (watched.path / "sub").mkdir()
    (watched.path / "sub" / "b.csv").write_text("x")
    (watched.path / "a.csv").write_text("x")
    (event,) = await watched.exactly(1)
    assert event["subject"] == "a.csv"


async def test_type_extra_data_and_captured_parts_of_the_path_are_in_the_event(watched: Watched) -> None:
    await watched.listen(
        type="orders.file", data={"team": "sales"}, template="{watch}/{customer}/{year:int}/{rest:path}"
    )
    (watched.path / "acme" / "2024" / "q1").mkdir(parents=True)
    (watched.path / "acme" / "2024" / "q1" / "a.csv").write_text("x")
    (event,) = await watched.exactly(1)
    assert event["type"] == "orders.file"
    assert {name: event["data"][name] for name in ("team", "customer", "year", "rest")} == {
        "team": "sales", "customer": "acme", "year": 2024, "rest": "q1/a.csv",
    }  # fmt: skip
    (watched.path / "loose.csv").write_text("x")
    _, loose = await watched.exactly(2)
    assert (loose["data"]["customer"], loose["data"]["year"]) == (None, None)


async def until(condition: Callable[[], bool], what: str) -> None:
    async def probe() -> bool:
        return condition()

    await eventually(probe, what=what)


async def test_a_file_that_no_include_covers_is_in_the_status_and_named_once_in_the_log(watched: Watched) -> None:
    names = ["A15_REPORT.CSV", "deep/notes.docx", "f4_bad.csv.error.json"]
    (watched.path / "deep").mkdir()
    (watched.path / "notes.docx.d").mkdir()
    for name in (names[0], ".hidden", "old.docx", "b.csv"):
        (watched.path / name).write_text("x")
    watched.settings = CALM
    with structlog.testing.capture_logs() as lines:
        listener = await watched.listen(include=["*.csv", "*.json"], exclude=["old*"])
        for name in names[1:]:
            (watched.path / name).write_text("x")
        await until(lambda: listener.status()["uncovered"]["count"] == 3, "all in the status")
        assert sorted(listener.status()["uncovered"]["files"]) == sorted(names)
        for _ in range(2):
            before = listener.status()["last_full_scan"]
            listener.rescan()
            await until(lambda before=before: listener.status()["last_full_scan"] != before, "a scan")
        (watched.path / names[0]).rename(watched.path / "a.csv")
        listener.rescan()
        await until(lambda: listener.status()["uncovered"]["count"] == 2, "one less")
        assert {event["subject"] for event in await watched.exactly(2)} == {"a.csv", "b.csv"}
    said = {line["file"]: line["reason"] for line in lines if line["event"] == "a file is not taken"}
    assert len([line for line in lines if line["event"] == "a file is not taken"]) == 3
    assert sorted(said) == sorted(names)
    assert "ignore_case: true" in said["A15_REPORT.CSV"]
    assert "no glob of `include` covers it" in said["deep/notes.docx"]
    assert "a note of Sluice's" in said["f4_bad.csv.error.json"]


async def test_a_note_that_comes_back_with_its_file_is_not_run(watched: Watched) -> None:
    await watched.listen()
    watched.archive()
    (watched.path / "f4_bad.csv").write_text("a,b\n1\n")
    (event,) = await watched.exactly(1)
    await watched.finish(event, ok=False)
    await watched.settled()
    failed = sorted((watched.path / "failed").iterdir())
    assert [path.name for path in failed] == ["f4_bad.csv", "f4_bad.csv.error.json"]
    for path in failed:
        path.rename(watched.path / path.name)
    _, again = await watched.exactly(2)
    assert again["subject"] == "f4_bad.csv"
    await watched.finish(again, ok=False)
    await watched.settled()
    assert sorted(path.name for path in (watched.path / "failed").iterdir()) == [path.name for path in failed]
    await watched.exactly(2)


async def test_bad_rows_that_a_load_has_put_aside_are_no_arrivals(watched: Watched) -> None:
    (watched.path / "rejected" / "deep").mkdir(parents=True)
    (watched.path / "rejected" / "a.csv.rejected.csv").write_text("x")
    listener = await watched.listen(include=["*.csv"])
    (watched.path / "rejected" / "deep" / "b.csv.rejected.csv").write_text("x")
    (watched.path / "a.csv.rejected.csv").write_text("x")  # mended, and dropped again
    (event,) = await watched.exactly(1)
    assert event["subject"] == "a.csv.rejected.csv"
    assert listener.status()["uncovered"]["count"] == 0
