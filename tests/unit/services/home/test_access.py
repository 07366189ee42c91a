"""Which server and which password a command takes: of the settings, of the home, and never one for the other's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.settings import Settings
from events.errors import ConfigError
from services.home.access import find_access, required_token
from services.home.home import Home, RunningInstallation

OWN = "http://127.0.0.1:4200/api"
RUNNING = RunningInstallation(
    pid=os.getpid(),
    redis_url="redis://:own@127.0.0.1:6390/0",
    prefect_api_url=OWN,
    api_url="http://127.0.0.1:4280",
    prefect_auth_string="sluice:own",
    api_token="own-token",
)


@pytest.fixture(autouse=True)
def _nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """The home of an installation that runs."""
    home = Home(tmp_path / "home")
    with home.locked():
        home.write_running(RUNNING)
        yield home.path


def test_where_nothing_runs_and_nothing_is_set_there_is_nothing(tmp_path: Path) -> None:
    found = find_access(Settings(home=tmp_path / "none"))
    assert set(found.as_environment().values()) == {None}
    assert (found.running, found.for_prefect()) == (None, {})
    assert not (tmp_path / "none").exists()


def test_an_installation_that_runs_tells_how_it_is_reached(home: Path) -> None:
    found = find_access(Settings(home=home))
    assert found.as_environment() == {
        "PREFECT_API_URL": OWN,
        "PREFECT_API_AUTH_STRING": "sluice:own",
        "SLUICE_REDIS_URL": "redis://:own@127.0.0.1:6390/0",
        "SLUICE_API_URL": "http://127.0.0.1:4280",
        "SLUICE_API_TOKEN": "own-token",
    }
    assert found.for_prefect() == {"PREFECT_API_URL": OWN, "PREFECT_API_AUTH_STRING": "sluice:own"}
    assert "own@" not in repr(found)


def test_a_password_of_the_home_is_not_for_another_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    found = find_access(Settings(home=home))
    assert (found.prefect_api_url, found.prefect_auth_string) == ("http://127.0.0.1:9/api", None)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "other:secret")
    assert find_access(Settings(home=home)).prefect_auth_string == "other:secret"


def test_a_server_that_is_named_and_is_the_homes_gets_the_homes_password(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", OWN + "/")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "other:secret")
    assert find_access(Settings(home=home)).prefect_auth_string == "sluice:own"


def test_a_redis_that_is_named_wins_and_its_password_becomes_part_of_the_url(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLUICE_REDIS_URL", "rediss://redis.example/1")
    monkeypatch.setenv("SLUICE_REDIS__PASSWORD", "p@ss/")
    monkeypatch.setenv("SLUICE_REDIS__USERNAME", "ada")
    assert find_access(Settings(home=home)).redis_url == "rediss://ada:p%40ss%2F@redis.example/1"


def test_a_token_of_the_settings_wins(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_API__TOKEN", "named")
    assert find_access(Settings(home=home)).api_token == "named"
    assert required_token(Settings(home=home)) == "named"


def test_in_development_the_home_has_the_token_and_an_open_installation_needs_none(home: Path) -> None:
    assert required_token(Settings(home=home)) == Home(home).credentials().api_token
    assert required_token(Settings(home=home, open=True)) is None


def test_outside_development_the_settings_must_name_the_token(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="SLUICE_API__TOKEN is not set, and outside development"):
        required_token(Settings(home=tmp_path, env="production"))
