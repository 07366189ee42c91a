"""Why a flow cannot be loaded, with file and line of the user's code."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.executor.process.flow_loading import describe_failure, given_environment, import_flow

FLOW = "from prefect import flow\n\n@flow\ndef load(): ...\n\ndef plain(): ...\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def why(entrypoint: str) -> str:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - whatever a user's file raises
        import_flow(entrypoint)
    return describe_failure(caught.value)


def test_a_flow_is_found_by_its_name(project: Path) -> None:
    (project / "own.py").write_text(FLOW)
    assert import_flow("own.py:load").name == "load"


def test_a_function_without_a_decorator_is_taken_for_a_flow(project: Path) -> None:
    (project / "own.py").write_text(FLOW)
    assert import_flow("own.py:plain").fn.__name__ == "plain"


def test_a_file_that_is_not_there_is_named(project: Path) -> None:
    assert why("gone.py:load") == f"the file {project / 'gone.py'} does not exist"


def test_a_flow_that_is_not_there_is_named_with_what_was_meant(project: Path) -> None:
    (project / "own.py").write_text(FLOW)
    said = why("own.py:lod")
    assert f"{project / 'own.py'} has no flow 'lod'" in said
    assert "load" in said


@pytest.mark.parametrize(
    ("code", "line", "what"),
    [
        ("x = 1\nraise ValueError('no')\n", 2, "ValueError: no"),
        ("def broken(:\n", 1, "SyntaxError"),
        ("1 / 0\n", 1, ""),
    ],
)
def test_an_error_of_the_file_is_shown_with_its_line(project: Path, code: str, line: int, what: str) -> None:
    (project / "bad.py").write_text(code)
    said = why("bad.py:load")
    assert said.startswith(f"{project / 'bad.py'}, line {line}: ")
    assert what in said


def test_the_environment_of_a_run_is_text() -> None:
    assert given_environment({"env": {"A": 1, "B": "x"}}) == {"A": "1", "B": "x"}
    assert given_environment({"env": None}) == {}
