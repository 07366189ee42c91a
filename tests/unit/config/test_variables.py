"""Mistakes in environment variables, each told in one sentence."""

from __future__ import annotations

import pytest

from config.settings import load_settings
from events.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SLUICE_REDIS_URL", "localhost:6379", "begin with redis://, rediss:// or unix:// — such as redis://localhost:6379"),
        ("SLUICE_REDIS_URL", "http://h:6379/0", "such as redis://h:6379/0"),
        ("SLUICE_ALLOWED_HOSTS", "a.example,b.example", """write SLUICE_ALLOWED_HOSTS='["a.example", "b.example"]'"""),
        ("SLUICE_EXECUTOR__DEPLOYMENTS", "*", """write SLUICE_EXECUTOR__DEPLOYMENTS='["*"]'"""),
        ("SLUICE_REDIS", "redis://h", "it is no mapping in JSON — set its parts instead, as SLUICE_REDIS__PART"),
        ("SLUICE_REDIS_URI", "redis://h", "Sluice has no such setting — did you mean `SLUICE_REDIS_URL`?"),
        ("PREFECT_API_URL", "http://127.0.0.1:4200", "the path of Prefect's API is missing — write http://127.0.0.1:4200/api"),
        ("PREFECT_API_URL", "http://h/prefect/", "write http://h/prefect/api"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_with_the_fix(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    (problem,) = caught.value.problems
    assert name in problem
    assert said in problem


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SLUICE_REDIS_URL", "rediss://h:6379/0"),
        ("SLUICE_ALLOWED_HOSTS", '["a.example"]'),
        ("PREFECT_API_URL", "https://api.prefect.cloud/api/accounts/1/workspaces/2"),
        ("PREFECT_API_URL", "http://h/prefect/api/"),
        ("SLUICE_API_URL", "http://127.0.0.1:4280"),  # from `sluice env`
        ("SLUICE_API_TOKEN", "a token"),
    ],
)
def test_what_is_right_is_taken(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    load_settings()


def test_a_password_in_a_wrong_address_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_REDIS_URL", "user:geheim@h:6379/0")
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert "geheim" not in str(caught.value)
    assert "such as redis://h:6379/0" in str(caught.value)
