"""What a Prefect server answers when it is asked for its version, or why it does not, without Prefect's client."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from services.common.prefect_probe import PrefectAnswer, ask_prefect, prefect_problem, prefect_version


@dataclass
class Server:
    """A server that answers everything alike, and notes what it is asked."""

    url: str = ""
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@contextmanager
def answering(status: int, body: bytes = b'"3.8.8"', **headers: str) -> Iterator[Server]:
    told = Server()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.asked.append((self.path, self.headers.get("Authorization")))
            self.send_response_only(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        told.url = f"http://127.0.0.1:{server.server_port}/api"
        yield told
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_API_AUTH_STRING", "PREFECT_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_a_server_tells_its_version_and_its_time() -> None:
    with answering(200, Date="Thu, 01 Jan 1970 00:01:00 GMT") as server:
        assert ask_prefect(server.url + "/") == PrefectAnswer(200, '"3.8.8"', 60.0)
        assert prefect_version(server.url) == "3.8.8"
        assert prefect_problem(server.url) is None
    assert {path for path, _ in server.asked} == {"/api/admin/version"}


@pytest.mark.parametrize("date", ["yesterday", ""])
def test_a_time_that_is_none_is_none(date: str) -> None:
    with answering(200, Date=date) as server:
        answer = ask_prefect(server.url)
    assert isinstance(answer, PrefectAnswer)
    assert answer.at is None


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "PREFECT_API_AUTH_STRING"), (403, "PREFECT_API_AUTH_STRING"), (500, "answers 500"), (404, "answers 404")],
)
def test_a_refusal_is_told_with_what_to_set(status: int, said: str) -> None:
    with answering(status) as server:
        assert said in (prefect_problem(server.url) or "")
        assert prefect_version(server.url) is None


def test_a_redirect_is_not_followed_with_the_password() -> None:
    with answering(200) as other, answering(302, Location=other.url) as server:
        assert prefect_problem(server.url, auth_string="u:p") == "answers 302"
    assert other.asked == []


def test_the_password_that_is_given_goes_before_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    basic = f"Basic {base64.b64encode(b'u:p').decode()}"
    with answering(200) as server:
        ask_prefect(server.url)
        monkeypatch.setenv("PREFECT_API_KEY", "key")
        ask_prefect(server.url)
        monkeypatch.setenv("PREFECT_API_AUTH_STRING", "other:p")
        ask_prefect(server.url, auth_string="u:p")
    assert [sent for _, sent in server.asked] == [None, "Bearer key", basic]


def test_a_server_that_is_not_there_is_told() -> None:
    with socket.socket() as taken:  # bound, and not listening
        taken.bind(("127.0.0.1", 0))
        assert (prefect_problem(f"http://127.0.0.1:{taken.getsockname()[1]}/api") or "").startswith("does not answer (")


@pytest.mark.parametrize("url", ["http://127.0.0.1:port/api", "http://[::1", "ftp://127.0.0.1/api", "nonsense", ""])
def test_an_address_that_is_none_is_told(url: str) -> None:
    assert (prefect_problem(url) or "").startswith("does not answer (")


def test_no_more_is_read_than_a_version_has() -> None:
    with answering(200, b"x" * 100_000) as server:
        answer = ask_prefect(server.url)
    assert isinstance(answer, PrefectAnswer)
    assert len(answer.text) == 1000
