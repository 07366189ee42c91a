"""An event is held to be what ends routers only if it ends a process that judges it alone."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import psutil

from config.project import Project, load_project
from events.event import Event
from services.routing.poison_check import end_of_evaluation
from tests.support.waiting import eventually

EVENT = Event(id="e", source="s", type="t", time=datetime(2026, 1, 1, tzinfo=UTC), data={"a": [1, None, "ü"]})


def _project(folder: Path) -> Project:
    file = folder / "sluice.yaml"
    file.write_text("rules: [{name: one, on: t, when: 'event.data.a[0] == 1', run: a/b}]\n")
    return load_project(file, home=folder)


async def test_an_ordinary_event_is_not_to_blame(tmp_path: Path) -> None:
    assert await end_of_evaluation(EVENT, _project(tmp_path), home=tmp_path) is None


async def test_an_event_whose_judge_is_ended_is(tmp_path: Path) -> None:
    judging = asyncio.create_task(end_of_evaluation(EVENT, _project(tmp_path), home=tmp_path))
    (child,) = await eventually(_children)
    child.kill()
    assert await judging == "a process that evaluated only this event was ended by SIGKILL"


async def test_an_event_whose_judge_does_not_come_to_an_end_is(tmp_path: Path) -> None:
    said = await end_of_evaluation(EVENT, _project(tmp_path), home=tmp_path, within_seconds=0.001)
    assert said == "a process that evaluated only this event did not end within 0.001 s"
    assert not await _children()


async def _children() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if "services.routing.poison_check" in one.cmdline()]
