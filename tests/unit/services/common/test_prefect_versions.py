"""Which versions of Prefect are said to be untested, and how."""

from __future__ import annotations

import threading
from collections.abc import Iterator, MutableMapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from structlog.testing import capture_logs

from config.settings import CHECKOUT, Settings
from services.common import prefect_versions
from services.common.prefect_versions import untested, untested_versions
from services.local.own_servers import check_own_servers
from services.prefect_api.client import connect
from tests.support.waiting import eventually


class Old(BaseHTTPRequestHandler):
    """As a Prefect server of another time answers the question for its version."""

    def do_GET(self) -> None:
        body = b'"3.7.2"' if self.path.endswith("/admin/version") else b"null"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def old_server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Old) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("3.8.8", False),
        ("3.9.1", False),
        ("3.9.12+3.gabcdef", False),
        ("3.8.7", True),
        ("3.8", True),
        ("3.10.0", True),
        ("3.10.0.dev1", True),
        ("2.20.4", True),
        ("4.0.0", True),
        ("", True),
        ("something else", True),
    ],
)
def test_versions_outside_the_tested_range_are_told_from_those_in_it(version: str, said: bool) -> None:
    assert untested(version) is said


def test_both_sides_are_said_with_the_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_versions, "version", lambda _name: "3.7.0")
    client, server = untested_versions("3.12.0", url="http://prefect:4200/api")
    assert client.startswith("Prefect 3.7.0 is installed here")
    assert server.startswith("the Prefect server at http://prefect:4200/api has the version 3.12.0")
    assert all("3.8.8 to 3.9.x" in sentence for sentence in (client, server))


def test_what_is_tested_and_what_does_not_answer_is_not_spoken_of() -> None:
    assert untested_versions("3.9.1") == untested_versions(None) == []


def test_sluice_up_says_it_before_it_starts_anything(old_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", old_server)
    said: list[str] = []
    check_own_servers(Settings(), say=said.append)
    (sentence,) = said
    assert sentence.startswith(f"Warning: the Prefect server at {old_server} has the version 3.7.2")
    assert "tested with 3.8.8 to 3.9.x" in sentence


async def test_a_role_logs_it_when_it_connects(old_server: str) -> None:
    with capture_logs() as logs:
        async with connect(old_server, check_version=True):

            async def told() -> list[MutableMapping[str, Any]]:
                return [line for line in logs if line["event"] == "untested version of Prefect"]

            (line,) = await eventually(told, what="the warning")
    assert line["log_level"] == "warning"
    assert "has the version 3.7.2" in line["problem"]


def test_the_range_is_the_one_that_is_required() -> None:
    assert (CHECKOUT / "pyproject.toml").read_text().count(f'"prefect>={_first()},<3.10"') == 2
    assert prefect_versions._BEHIND == (3, 10)


def _first() -> str:
    return ".".join(map(str, prefect_versions._FIRST))
