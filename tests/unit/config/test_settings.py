from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from config.settings import Settings, load_settings
from events.errors import ConfigError


def problems() -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings()
    return "\n".join(caught.value.problems)


def test_without_any_variable_the_defaults_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL")
    settings = load_settings()
    assert settings.env == "development"
    assert settings.home == Path.cwd() / ".sluice"
    assert settings.redis_url is None
    assert settings.prefect_api_url is None
    assert settings.config.is_file()


@pytest.mark.parametrize("env", ["development", "staging", "production"])
def test_every_environment_has_a_file_of_good_settings(
    env: str, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLUICE_ENV", env)
    file = yaml.safe_load((checkout / "config" / "environments" / f"{env}.yaml").read_text())
    settings = load_settings()
    assert settings.env == env
    assert settings.log.level == file["log"]["level"]


def test_a_variable_wins_over_the_environments_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_ENV", "production")
    monkeypatch.setenv("SLUICE_LOG__FORMAT", "console")
    settings = load_settings()
    assert settings.log.format == "console"
    assert settings.redis.fsync == "always"


def test_paths_are_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_HOME", "~/state")
    assert load_settings().home == Path.home() / "state"


def test_every_problem_is_told_at_once_under_the_variables_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_EXECUTOR__SLOTS", "none")
    monkeypatch.setenv("SLUICE_LIMITS__MAX_DEPTH", "1")
    monkeypatch.setenv("SLUICE_HOM", "x")
    monkeypatch.setenv("SLUICE_LOG__LEVL", "info")
    monkeypatch.setenv("PREFECT_API_URL", "nonsense")
    said = problems()
    for name in (
        "SLUICE_EXECUTOR__SLOTS",
        "SLUICE_LIMITS__MAX_DEPTH",
        "SLUICE_HOM",
        "SLUICE_LOG__LEVL",
        "PREFECT_API_URL",
    ):
        assert name in said
    assert "did you mean `SLUICE_HOME`?" in said
    assert "did you mean `SLUICE_LOG__LEVEL`?" in said


def test_an_unknown_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_ENV", "prod")
    assert "SLUICE_ENV" in problems()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().env = "staging"


def test_the_defaults_of_every_part_are_good() -> None:
    for name, field in Settings.model_fields.items():
        if hasattr(field.annotation, "model_validate"):
            assert field.annotation.model_validate(getattr(Settings(), name).model_dump()) == getattr(Settings(), name)


def test_a_setting_that_is_a_secret_is_not_repeated_when_it_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_REDIS__SENTINELS", '["redis://ada:pw123@host"]')
    monkeypatch.setenv("SLUICE_API", '{"token": {"pw": "pw456"}}')
    said = problems()
    assert "SLUICE_REDIS__SENTINELS" in said
    assert "SLUICE_API__TOKEN" in said
    assert "pw123" not in said
    assert "pw456" not in said


def test_settings_that_are_shown_hold_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_REDIS__PASSWORD", "pw123")
    monkeypatch.setenv("SLUICE_API__TOKEN", "pw123")
    assert "pw123" not in repr(load_settings())


@pytest.mark.parametrize("variable", ["SLUICE_API__HOST", "SLUICE_PREFECT_HOST"])
def test_without_passwords_nothing_listens_beyond_loopback(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_OPEN", "true")
    load_settings()
    monkeypatch.setenv(variable, "0.0.0.0")
    with pytest.raises(ConfigError, match=f"{variable} is 0.0.0.0"):
        load_settings()
