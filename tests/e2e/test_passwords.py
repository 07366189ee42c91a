"""Who needs which password: over websockets, outside development, and in an installation that was opened."""

from __future__ import annotations

import json
import stat
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import redis
import websockets.sync.client
from websockets.exceptions import ConnectionClosed, InvalidStatus

from services.store.canary.flights import CANARY_STEPS
from tests.support.installation import Installation
from tests.support.waiting import wait_until

SOCKETS = (
    "events/in",
    "events/out",
    "logs/out",
    "task_runs/subscriptions/scheduled",
    "work_pools/a-pool/workers/connect",
)


def shaken(installation: Installation, path: str, token: str | None, *, protocol: bool = True) -> str:
    """What the server answers to the first message, which is to hold the password; \"closed\" if it ends instead."""
    url = installation.status["prefect_api"].replace("http://", "ws://")
    with websockets.sync.client.connect(f"{url}/{path}", subprotocols=["prefect"] if protocol else None) as connection:
        try:
            connection.send(json.dumps({"type": "auth", "token": token}))
            return str(json.loads(connection.recv(timeout=30))["type"])
        except ConnectionClosed:
            return "closed"


@pytest.mark.parametrize("path", SOCKETS)
def test_a_websocket_wants_the_password(installation: Installation, path: str) -> None:
    for token in (None, "", "admin:pass", "gu\u00e9ss", installation.access["PREFECT_API_AUTH_STRING"] + "x"):
        assert shaken(installation, path, token) == "closed", token
    with pytest.raises(InvalidStatus):
        shaken(installation, path, installation.access["PREFECT_API_AUTH_STRING"], protocol=False)
    assert shaken(installation, path, installation.access["PREFECT_API_AUTH_STRING"]) == "auth_success"


def event() -> dict[str, Any]:
    return {"specversion": "1.0", "id": uuid.uuid4().hex, "source": "shop", "type": "nobody.wants.it"}


def posted(installation: Installation, **headers: str) -> int:
    return httpx.post(f"{installation.status['api']}/events", json=event(), headers=headers, timeout=30).status_code


def canary_leaves_nothing(installation: Installation) -> None:
    """In production a file and a message go the whole way: every step is timed, and what they leave is deleted."""

    def flown() -> dict[str, Any] | None:
        found: dict[str, Any] | None = json.loads(installation.sluice("status", "--json", check=False).stdout)["canary"]
        return found if found is not None and found["failed"] is None else None

    flight = installation.until(flown, "the canary came through", pause_seconds=0.3, within_seconds=180)
    assert list(flight["seconds"]) == list(CANARY_STEPS)
    installation.until(lambda: not installation.runs("sluice-canary"), "its run is deleted", pause_seconds=0.2)
    assert json.loads(installation.sluice("events", "list", "--type", "sluice.canary", "--json").stdout) == []
    assert json.loads(installation.sluice("signals", "list", "--json").stdout) == []
    assert list((installation.home / "canary").iterdir()) == []
    assert "sluice-canary" not in json.dumps(installation.status["watches"])
    metrics = httpx.get(
        f"{installation.status['api']}/metrics",
        headers={"Authorization": f"Bearer {installation.access['SLUICE_API_TOKEN']}"},
        timeout=30,
    ).text
    assert "sluice_canary_up 1.0" in metrics
    assert 'sluice_canary_step_seconds{step="resume"}' in metrics


def test_outside_development_the_api_wants_a_token_that_is_made_once(tmp_path: Path) -> None:
    with Installation(tmp_path / ".sluice", env={"SLUICE_ENV": "production"}) as installation:
        token = installation.access["SLUICE_API_TOKEN"]
        assert token
        for wrong in ({}, {"Authorization": "Bearer guess"}, {"Authorization": f"Basic {token}"}):
            assert posted(installation, **wrong) == 401
            assert httpx.get(f"{installation.status['api']}/metrics", headers=wrong, timeout=30).status_code == 401
        assert posted(installation, Authorization=f"Bearer {token}") == 202
        assert httpx.get(f"{installation.status['api']}/health/ready", timeout=30).status_code == 200
        assert httpx.get(f"{installation.status['prefect_api']}/admin/version", timeout=30).status_code == 401
        canary_leaves_nothing(installation)
        assert token not in installation.output.read_text()
        assert token not in "".join(path.read_text(errors="replace") for path in (tmp_path / ".sluice/logs").iterdir())


def test_an_open_installation_says_so_asks_for_nothing_and_still_refuses_pages(tmp_path: Path) -> None:
    with Installation(tmp_path / ".sluice", env={"SLUICE_OPEN": "true"}) as installation:
        assert "OPEN: this installation has no passwords" in installation.output.read_text()
        prefect, api = installation.status["prefect_api"], installation.status["api"]
        for name in ("PREFECT_API_AUTH_STRING", "SLUICE_API_TOKEN"):
            assert installation.access[name] is None
        address = installation.access["SLUICE_REDIS_URL"]
        assert address
        assert urlsplit(address).password is None
        with redis.Redis.from_url(address) as client:
            assert client.ping()
        assert httpx.get(f"{prefect}/admin/version", timeout=30).status_code == 200
        assert posted(installation) == 202
        for url in (f"{prefect}/admin/version", f"{api}/health/live"):
            assert httpx.get(url, headers={"Host": "rebound.example"}, timeout=30).status_code == 421
            assert httpx.get(url, headers={"Origin": "https://evil.example"}, timeout=30).status_code == 403
        assert posted(installation, Origin="https://evil.example") == 403
        assert stat.S_IMODE(installation.home.stat().st_mode) == 0o700
        page = httpx.get(installation.sluice("ui").stdout.strip(), timeout=30)
        assert page.status_code == 200
        name = uuid.uuid4().hex
        order = {**event(), "id": name, "type": "order.created", "data": {"order_id": name, "amount": 1}}
        assert httpx.post(f"{api}/events", json=order, timeout=30).status_code == 202
        wait_until(lambda: [run for run in installation.runs("order-approval") if run["state_name"] == "Paused"])
