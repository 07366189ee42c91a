"""The Prefect server as compose.yaml starts it: for the names of its services, and for no page of another origin."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator

import httpx
import pytest
import yaml

from config.settings import CHECKOUT
from services.local.embedded_servers import Server, claim_port

AUTH = ("sluice", "a-password")
SERVICE = yaml.safe_load((CHECKOUT / "compose.yaml").read_text(encoding="utf-8"))["services"]["prefect"]
PUBLIC = "sluice.example"


def filled(text: str) -> str:
    return re.sub(r"\$\{PUBLIC_HOST:-[^}]*\}", PUBLIC, text)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its command and its settings, but for the port and PostgreSQL."""
    home = tmp_path_factory.mktemp("prefect")
    port = claim_port(0, "a free port")
    _python, *module = SERVICE["entrypoint"]
    command = [filled(word).replace("0.0.0.0", "127.0.0.1").replace("4200", str(port)) for word in SERVICE["command"]]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "PREFECT_"))}
    given = {name: filled(value) for name, value in SERVICE["environment"].items() if "DATABASE" not in name}
    env = {
        **kept,
        **given,
        "PREFECT_SERVER_API_AUTH_STRING": ":".join(AUTH),
        "PREFECT_HOME": str(home),
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'prefect.db'}",
        "PYTHONPATH": str(CHECKOUT),
    }
    started = Server("Prefect", [sys.executable, *module, *command], log_file=home / "log", env=env, cwd=home)
    url = f"http://127.0.0.1:{port}"
    try:
        started.wait_ready(lambda: answers(url), within_seconds=120)
        yield url
    finally:
        started.stop()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/api/health", timeout=5).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def asked(url: str, path: str = "/api/admin/version", *, login: bool = True, **headers: str) -> httpx.Response:
    return httpx.get(f"{url}{path}", headers=headers, auth=AUTH if login else None, timeout=30)


@pytest.mark.parametrize("host", ["prefect:4200", f"{PUBLIC}:4200", "localhost:4200", PUBLIC.upper()])
def test_it_answers_under_the_names_of_its_services_and_asks_for_the_password(server: str, host: str) -> None:
    assert asked(server, Host=host).status_code == 200
    assert asked(server, Host=host, login=False).status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "prefect.evil.example", f"{PUBLIC}.evil.example:4200", "10.0.0.7"])
def test_a_name_that_was_made_to_point_here_is_not_served(server: str, host: str) -> None:
    assert asked(server, Host=host).status_code == 421
    assert asked(server, "/", Host=host, login=False).status_code == 421


def test_a_page_of_another_origin_changes_nothing_and_one_of_its_own_does(server: str) -> None:
    body = json.dumps({"name": "made", "value": 1})
    for origin, status in (("https://evil.example", 403), ("null", 403), (f"http://{PUBLIC}:4200", 201)):
        answer = httpx.post(
            f"{server}/api/variables/", content=body, headers={"Origin": origin, "Host": f"{PUBLIC}:4200"}, auth=AUTH
        )
        assert answer.status_code == status, origin


def test_without_the_tickets_of_a_home_no_link_logs_in(server: str) -> None:
    assert httpx.post(f"{server}/sluice/login", json={"ticket": "x"}, timeout=30).status_code == 403
