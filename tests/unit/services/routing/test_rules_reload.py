from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from config.parameters import ParameterFindings
from config.project import Project, load_project
from events.errors import TransientError
from services.routing.rules_reload import LiveProject
from services.store.rules.rules_in_force import InForce
from tests.support.waiting import eventually
from tests.unit.events.making import event

GOOD = "rules:\n  - {name: r, on: '*', run: a/b}\n"
BETTER = "rules:\n  - {name: r, on: '*', run: a/b}\n  - {name: s, on: '*', run: c/d}\n"
BAD = "rules:\n  - {name: r, on: '*', run: a/b, whn: x}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "sluice.yaml"
    put(file, GOOD)
    return file


def put(file: Path, text: str) -> None:
    file.write_text(text)


def live(path: Path, **options: object) -> LiveProject:
    return LiveProject(load_project(path, home=path.parent), home=path.parent, **options)


def remove(file: Path) -> None:
    file.unlink()


async def settled(project: LiveProject) -> bool:
    """A look that sees the file at rest."""
    await project.look()
    return await project.look()


async def test_a_file_that_does_not_change_changes_nothing(path: Path) -> None:
    project = live(path)
    before = project.project
    assert not await settled(project)
    assert project.project is before


async def test_a_good_change_takes_effect_with_its_version(path: Path) -> None:
    project = live(path)
    _, before = project.judge(event())
    put(path, BETTER)
    assert await settled(project)
    verdicts, version = project.judge(event())
    assert [verdict.rule for verdict in verdicts] == ["r", "s"]
    assert version != before
    assert project.status()["version"] == version


async def test_a_change_while_the_file_was_first_read_is_found(path: Path) -> None:
    loaded = load_project(path, home=path.parent)
    put(path, BETTER)
    project = LiveProject(loaded, home=path.parent)
    assert await settled(project)


async def test_a_file_that_is_still_being_written_is_left_alone(path: Path) -> None:
    project = live(path)
    await settled(project)
    for size in range(10, len(BETTER)):
        put(path, BETTER[:size])
        assert not await project.look()
    assert len(project.project.rules) == 1
    put(path, BETTER)
    assert await settled(project)


async def test_a_bad_change_is_refused_whole_with_the_reason_and_the_old_rules_stay(path: Path) -> None:
    project = live(path)
    before = project.project
    put(path, BETTER + BAD.removeprefix("rules:\n"))
    assert not await settled(project)
    assert project.project is before
    status = project.status()
    assert "the name is taken" in status["degraded"]
    assert "did you mean `when`?" in status["refused"][1]
    assert len(status["refused"]) == 2
    assert not await settled(project), "the same bad file is not tried again and again"
    put(path, BETTER)
    assert await settled(project)
    assert "degraded" not in project.status()


async def test_a_bad_change_that_is_taken_back_is_forgotten(path: Path) -> None:
    project = live(path)
    put(path, BAD)
    await settled(project)
    put(path, GOOD)
    assert not await settled(project)
    assert "degraded" not in project.status()


async def test_a_file_that_is_gone_changes_nothing_until_it_is_back(path: Path) -> None:
    project = live(path)
    remove(path)
    assert not await settled(project)
    assert "there is no such file" in project.status()["degraded"]
    put(path, BETTER)
    assert await settled(project)


async def test_what_prefect_refuses_is_refused(path: Path) -> None:
    async def check(project: Project) -> ParameterFindings:
        return ParameterFindings(errors=("no such parameter",) if len(project.rules) > 1 else ())

    project = live(path, check=check)
    put(path, BETTER)
    assert not await settled(project)
    assert "no such parameter" in project.status()["degraded"]


async def test_rules_are_taken_over_while_prefect_is_away(path: Path) -> None:
    async def check(_: Project) -> ParameterFindings:
        raise TransientError("away")

    project = live(path, check=check)
    put(path, BETTER)
    assert await settled(project)


async def test_other_sources_are_told_where_they_matter(path: Path) -> None:
    project, other = live(path, sources_matter=True), live(path)
    put(path, GOOD + "sources: {redis: {a: {channel: x}}}\n")
    assert await settled(project)
    assert await settled(other)
    assert "restart" in project.status()["degraded"]
    assert "degraded" not in other.status()


async def test_the_part_follows_its_file_and_tells_what_is_in_force(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.routing.rules_reload.LOOK_SECONDS", 0.02)
    told: list[InForce] = []

    async def publish(loaded: InForce) -> None:
        told.append(loaded)

    async def check(_: Project) -> ParameterFindings:
        return ParameterFindings(warnings=("no deployment yet",))

    project = live(path, publish=publish, check=check)
    running = asyncio.create_task(project.run())
    try:
        await eventually(lambda: _is(len(told) == 1))
        put(path, BETTER)
        await eventually(lambda: _is(len(told) == 2))
        assert [one.text for one in told] == [GOOD, BETTER]
        assert told[1].version == project.project.version
        assert project.status()["waiting_for"] == ["no deployment yet"]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _is(value: bool) -> bool:
    return value
