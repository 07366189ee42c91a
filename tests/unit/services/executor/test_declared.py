import textwrap

import pytest

from events.errors import ConfigError
from services.executor.declared import declared


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flows").mkdir()

    def write(source, name):
        path = tmp_path / "flows" / f"{name}.py"
        path.write_text(textwrap.dedent(source))
        return path

    return write


def test_every_flow_of_a_file_gets_a_deployment_with_its_parameters_and_description(write, tmp_path):
    file = write(
        '''
        from prefect import flow

        @flow(name="load-it")
        def main(path: str, rows: int = 5):
            """Load a file."""
        ''',
        "declared_plain",
    )
    ((name, body),) = declared(file, root=tmp_path, environment="development")
    assert name == "load-it"
    assert body["name"] == "default"
    assert body["entrypoint"] == "flows/declared_plain.py:main"
    assert body["path"] == str(tmp_path)
    assert body["tags"] == ["sluice"]
    assert body["description"] == "Load a file."
    assert body["work_pool_name"] is None
    assert body["parameter_openapi_schema"]["required"] == ["path"]
    assert body["parameter_openapi_schema"]["properties"]["rows"]["default"] == 5


def test_what_the_file_declares_becomes_schedules_limits_and_job_variables(write, tmp_path):
    file = write(
        """
        from prefect import flow

        DEPLOYMENT = {
            "cron": "0 3 * * *", "timezone": "Europe/Berlin", "concurrency_limit": 2, "priority": "high",
            "memory_mb": 512, "time_seconds": 60, "on_lost": "restart", "tags": ["nightly"],
            "environments": {"production": {"cron": "0 4 * * *"}},
        }

        @flow
        def main(): pass
        """,
        "declared_tuned",
    )
    ((_, body),) = declared(file, root=tmp_path, environment="production")
    assert body["schedules"] == [{"schedule": {"cron": "0 4 * * *", "timezone": "Europe/Berlin"}, "active": True}]
    assert body["concurrency_limit"] == 2
    assert body["tags"] == ["nightly", "sluice"]
    assert body["job_variables"] == {
        "sluice_priority": "high",
        "sluice_memory_mb": 512,
        "sluice_time_seconds": 60,
        "sluice_on_lost": "restart",
    }


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            "from prefect import flow\nDEPLOYMENT = {'crom': '* * * * *'}\n@flow\ndef main(): pass",
            "DEPLOYMENT key crom",
        ),
        ("from prefect import flow\nDEPLOYMENT = dict(a=1)\n@flow\ndef main(): pass", "line 2: DEPLOYMENT must be"),
        ("from prefect import flow\n\ndef main(:\n", "line 3"),
        ("from prefect import flow\nimport not_there_at_all\n@flow\ndef main(): pass", "line 2: ModuleNotFoundError"),
    ],
)
def test_a_file_at_fault_is_named_with_what_is_wrong(write, tmp_path, source, words):
    file = write(source, f"declared_fault_{abs(hash(words)) % 10_000}")
    with pytest.raises(ConfigError, match="declared_fault") as error:
        declared(file, root=tmp_path, environment="development")
    assert words in str(error.value)


def test_a_file_without_a_flow_has_no_deployment(write, tmp_path):
    assert declared(write("VALUE = 1\n", "declared_none"), root=tmp_path, environment="development") == []
