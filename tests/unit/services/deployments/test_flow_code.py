"""Which files of a project are flow files: by their folder, by their module, and by what stands in their text."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.deployments.flow_code import FlowCode, find_flow_code, flows_mention, seems_to_hold_flows

FLOW = "from prefect import flow\n\n@flow\ndef main(): ...\n"


def write(root: Path, *names: str, text: str = FLOW) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def found(root: Path, *names: str) -> tuple[list[str], list[str], list[str]]:
    """The files, what is said of others, and the problems."""
    problems: list[str] = []
    codes, notes = find_flow_code(root, names or None, where="sluice.yaml:1: flows", problems=problems)
    return [code.path.relative_to(root).as_posix() for code in codes], notes, problems


@pytest.mark.parametrize(
    "text",
    [
        FLOW,
        "import prefect\n@prefect.flow(name='x')\ndef main(): ...",
        "from prefect import flow as f\n@f\nasync def main(): ...",
        "from prefect.flows import flow as f\nmain = f(print)",
        "DEPLOYMENT = {}",
        "DEPLOYMENT: dict = {'cron': None}",
        "def broken(:",
    ],
)
def test_a_text_that_makes_a_flow_is_seen_without_importing_it(tmp_path: Path, text: str) -> None:
    write(tmp_path, "a.py", text=text)
    assert seems_to_hold_flows(tmp_path / "a.py")


@pytest.mark.parametrize(
    "text",
    ["", "x = 1", "# @flow", "from prefect import task\n@task\ndef main(): ...", "def f():\n    DEPLOYMENT = {}"],
)
def test_another_text_is_not_taken_for_one(tmp_path: Path, text: str) -> None:
    write(tmp_path, "a.py", text=text)
    assert not seems_to_hold_flows(tmp_path / "a.py")
    assert not seems_to_hold_flows(tmp_path / "gone.py")


def test_without_names_the_folder_flows_is_meant_and_need_not_be_there(tmp_path: Path) -> None:
    assert found(tmp_path) == (
        [], [f"{tmp_path}/flows: there is no such folder, so no deployment is registered"], []
    )  # fmt: skip
    write(tmp_path, "flows/a.py", "flows/b.py", "other/c.py")
    assert found(tmp_path)[0] == ["flows/a.py", "flows/b.py"]


def test_below_a_folder_only_files_with_flows_count_and_the_others_are_told(tmp_path: Path) -> None:
    write(tmp_path, "jobs/top.py", "jobs/sub/plain.py", text="x = 1\n")
    write(tmp_path, "jobs/sub/a.py", "jobs/_helper.py", "jobs/sub/__init__.py", "jobs/.hidden/x.py")
    files, (note,), problems = found(tmp_path, "jobs")
    assert (files, problems) == (["jobs/sub/a.py", "jobs/top.py"], [])
    assert note.startswith(f"{tmp_path}/jobs: not imported, as no flow is seen in their text: sub/plain.py — ")


def test_many_files_without_flows_are_counted(tmp_path: Path) -> None:
    write(tmp_path, *(f"jobs/sub/{number}.py" for number in range(8)), text="x = 1\n")
    (note,) = found(tmp_path, "jobs")[1]
    assert "sub/4.py and 3 more — " in note


def test_a_file_that_is_named_twice_is_found_once(tmp_path: Path) -> None:
    write(tmp_path, "jobs/a.py")
    (tmp_path / "link").symlink_to("jobs")
    assert found(tmp_path, "jobs", "jobs/a.py", "./jobs/../jobs", "link")[0] == ["jobs/a.py"]


@pytest.mark.parametrize("name", ["jobs", "../outside", "a b", "no.such.module", "notes.txt"])
def test_a_name_that_leads_nowhere_is_a_problem(tmp_path: Path, name: str) -> None:
    write(tmp_path, "notes.txt", text="")
    write(tmp_path.parent / "outside", "a.py")
    files, _, (problem,) = found(tmp_path, name)
    assert files == []
    assert problem.startswith("sluice.yaml:1: flows: ")
    assert repr(name) in problem


def test_an_entrypoint_is_a_file_or_a_module(tmp_path: Path) -> None:
    assert FlowCode(tmp_path / "flows" / "a.py").entrypoint(tmp_path, "main") == "flows/a.py:main"
    assert FlowCode(tmp_path / "src" / "acme" / "a.py", "acme.a").entrypoint(tmp_path, "main") == "acme.a.main"


def test_whether_flows_mention_a_module(tmp_path: Path) -> None:
    write(tmp_path, "flows/sub/a.py", "one.py", text="import pandas\n")
    assert flows_mention(tmp_path, None, "pandas")
    assert flows_mention(tmp_path, ["one.py"], "pandas")
    assert not flows_mention(tmp_path, ["one.py"], "polars")
    assert not flows_mention(tmp_path, ["gone"], "pandas")
