"""No request that hides in another one reaches the Prefect server of `sluice up`."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import uuid
from urllib.parse import urlsplit

import pytest

from tests.support.installation import Installation
from tests.support.smuggling import FORMS, hidden


def answers(port: int, raw: bytes) -> bytes:
    """All that the server says until it ends the connection, or for two seconds."""
    said = b""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(raw)
        connection.settimeout(2)
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while piece := connection.recv(65536):
                said += piece
    return said


@pytest.mark.parametrize("form", FORMS)
def test_a_request_in_another_is_never_read(installation: Installation, form: str) -> None:
    """Both have the password: what a proxy lets pass is not more than what whoever sent it may do."""
    url = urlsplit(installation.status["prefect_api"])
    assert url.port
    name = f"smuggled-{uuid.uuid4().hex}".replace("-", "_")
    login = base64.b64encode(str(installation.access["PREFECT_API_AUTH_STRING"]).encode()).decode()
    body = json.dumps({"name": name, "value": 1})
    head = f"host: localhost:{url.port}\r\ncontent-type: application/json\r\nauthorization: Basic {login}\r\n"
    second = f"POST /api/variables/ HTTP/1.1\r\n{head}content-length: {len(body)}\r\n\r\n{body}"
    said = answers(url.port, hidden(form, first=f"POST /api/variables/filter HTTP/1.1\r\n{head}", second=second))
    assert said.count(b"HTTP/1.1 ") <= 1, said
    assert not said.startswith(b"HTTP/1.1 2"), said
    found = installation.prefect.post("/variables/filter", json={"variables": {"name": {"any_": [name]}}}).json()
    assert found == []
