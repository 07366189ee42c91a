"""How a command waits for the installation's servers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from config.settings import load_settings
from events.errors import TransientError
from services.cli.session import Session
from services.local.embedded_servers import claim_port

ANSWERS = [503, 503, 200]


class Starting(BaseHTTPRequestHandler):
    """Prefect's API as it starts."""

    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        self.send_response(ANSWERS[min(self.asked, len(ANSWERS)) - 1])
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    Starting.asked = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Starting)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def session(port: int) -> Session:
    return Session(
        settings=load_settings(),
        redis_url="redis://127.0.0.1:1/0",
        prefect_api_url=f"http://127.0.0.1:{port}/api",
        prefect_auth_string=None,
        stack=AsyncExitStack(),
    )


async def test_a_command_that_waits_for_prefect_goes_on_when_prefect_answers(port: int) -> None:
    await session(port).wait_for_prefect(3600)
    assert Starting.asked == len(ANSWERS)


async def test_without_patience_prefect_is_asked_once(port: int) -> None:
    with pytest.raises(TransientError, match="answers 503"):
        await session(port).wait_for_prefect(0)
    assert Starting.asked == 1


async def test_a_prefect_that_never_answers_is_told_with_its_address() -> None:
    port = claim_port(0, "a free port")
    with pytest.raises(TransientError, match=f"the Prefect server at http://127.0.0.1:{port}/api does not answer"):
        await session(port).wait_for_prefect(0.2)
