"""A file whose run failed is tried again: brought back as the version that failed, and archived by how it ends now."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from config.settings import FileSettings
from config.sources import FilesSource
from services.cli import dead, events
from services.listeners.files.archiving.archiver import FileArchiver
from services.listeners.files.listener import FilesListener
from services.prefect_api.client import PrefectApi
from services.store.events.event_history import EventHistory
from services.store.events.finished_events import FinishedEvents
from services.store.files.ledger import Ledger
from services.store.lease import Lease
from services.store.runs.created_runs import RUN
from tests.integration.delivery.world import RULE, World, deployment, runs_of, set_state
from tests.support.waiting import eventually

QUICK = FileSettings(rescan_seconds=0.5, stable_seconds=0.3, cookie_seconds=0.5)
OF_FILES = {**RULE, "on": "sluice.file.arrived", "parameters": {"amount": "{{ event.data.size }}"}}


class Dropped:
    """A watched folder, its listener and archiver, and the world that makes runs of its files."""

    def __init__(self, world: World, prefect: PrefectApi, box: Path, name: str) -> None:
        self.world, self.prefect, self.box, self.deployment = world, prefect, box, name

    async def failed(self, name: str, *, state: str = "FAILED") -> tuple[str, str]:
        """A file whose run has ended, and lies in `failed`; the ids of its event and run."""
        before = {run["id"] for run in await runs_of(self.prefect, self.deployment)}
        (self.box / name).write_text(name)
        run_id = await eventually(lambda: self._new_run(before), what=f"the run of {name}")
        await set_state(self.prefect, run_id, state, message=f"no table for {name}")
        await self.lies(self.box / "failed" / name)
        (identity,) = await self.world.history.events_of_run(run_id)
        return identity.partition("@")[0], run_id

    async def _new_run(self, before: set[str]) -> str | None:
        return next(
            (run["id"] for run in await runs_of(self.prefect, self.deployment) if run["id"] not in before), None
        )

    async def history(self, event_id: str) -> EventHistory:
        found = await self.world.history.get(await self.world.history.choose(event_id))
        assert found is not None
        return found

    async def has_said(self, event_id: str, messages: list[str]) -> bool:
        """Whether its only run has had states with these messages."""
        (run,) = (await self.history(event_id)).runs
        return [state.message for state in run.states] == messages

    async def state(self, run_id: str) -> dict[str, Any]:
        state: dict[str, Any] = (await self.prefect.request("GET", f"/flow_runs/{run_id}"))["state"]
        return state

    async def is_in(self, run_id: str, name: str) -> None:
        async def there() -> bool:
            return (await self.state(run_id))["name"] == name

        await eventually(there, what=f"a run that is {name}")

    async def lies(self, path: Path) -> None:
        await eventually(_probe(path.exists), what=f"a file at {path}")

    async def completed(self, name: str, run_id: str) -> None:
        """The run that started again goes well, and its file lies in `done`."""
        await set_state(self.prefect, run_id, "RUNNING")
        await set_state(self.prefect, run_id, "COMPLETED")
        await self.lies(self.box / "done" / name)
        assert not (self.box / "failed" / name).exists()
        assert not (self.box / "failed" / f"{name}.error.json").exists()


def _probe(check: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def probe() -> bool:
        return check()

    return probe


@pytest.fixture
def box(tmp_path: Path) -> Path:
    path = tmp_path / "inbox"
    path.mkdir()
    return path


@asynccontextmanager
async def _running(world: World, prefect: PrefectApi, box: Path, **source: Any) -> AsyncIterator[Dropped]:
    name = await deployment(prefect)
    world.use({**OF_FILES, "run": name})
    sources = {"inbox": FilesSource(**{"path": box, **source})}
    ledger = Ledger(world.redis, world.journal_settings, QUICK)
    listener = FilesListener(name="inbox", source=sources["inbox"], settings=QUICK, ledger=ledger)
    archiver = FileArchiver(
        sources=sources,
        settings=QUICK,
        ledger=ledger,
        finished=FinishedEvents(world.redis, consumer="test"),
        returns=world.returns,
        turn=lambda right: Lease(world.redis, right, ttl_seconds=5),
    )
    async with world.running():
        tasks = [asyncio.create_task(part.run()) for part in (listener, archiver)]
        try:
            yield Dropped(world, prefect, box, name)
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with contextlib.suppress(asyncio.CancelledError):
                    await task


@pytest.fixture(autouse=True)
def _installation(valkey_url: str, prefect_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_REDIS_URL", valkey_url)
    monkeypatch.setenv("PREFECT_API_URL", prefect_url)
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LOGNAME", "ada")


async def _call(app: Any, *arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, list(arguments))


async def test_what_failed_is_tried_again_with_its_file_by_command_and_by_retry_in_prefect(
    world: World, prefect: PrefectApi, box: Path
) -> None:
    async with _running(world, prefect, box) as dropped:
        event_id, run_id = await dropped.failed("a.csv")
        other_event, other_run = await dropped.failed("b.csv")
        cancelled_event, cancelled_run = await dropped.failed("c.csv", state="CANCELLED")
        (box / "failed" / "b.csv").write_text("mended")

        answer = await _call(events.app, "replay", "--failed", "--json")
        said = json.loads(answer.stdout)
        assert (said["runs_started_again"], [one["id"] for one in said["refused"]]) == (1, [other_event])
        assert "failed/b.csv has changed since it was archived" in said["refused"][0]["reason"]
        assert answer.exit_code == 1
        assert (await dropped.state(other_run))["type"] == "FAILED"
        assert (await dropped.state(cancelled_run))["type"] == "CANCELLED"

        for name in ("failed/b.csv", "b.csv"):
            shown = await _call(events.app, "show", str(box / name), "--json")
            assert json.loads(shown.stdout)["id"] == other_event
        await dropped.is_in(run_id, "AwaitingRetry")
        assert (box / "a.csv").read_text() == "a.csv"
        assert not (box / "failed" / "a.csv.error.json").exists()
        await dropped.completed("a.csv", run_id)
        found = await dropped.history(event_id)
        assert found.runs[0].states[0].message == "no table for a.csv"
        assert found.outcome == "done"
        assert any("brought back from failed/a.csv" in note.text and "ada" in note.text for note in found.notes)

        await _call(events.app, "replay", cancelled_event)  # it is named
        await dropped.is_in(cancelled_run, "AwaitingRetry")
        await set_state(prefect, cancelled_run, "FAILED", message="the second time")
        await dropped.lies(box / "failed" / "c.csv.error.json")

        retry = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}
        for run, name in ((other_run, "Failed"), (cancelled_run, "AwaitingRetry")):
            await prefect.request("POST", f"/flow_runs/{run}/set_state", json={"state": retry, "force": False})
            await dropped.is_in(run, name)
        assert "Not started again" in (await dropped.state(other_run))["message"]
        assert (box / "failed" / "b.csv").read_text() == "mended"
        await dropped.lies(box / "c.csv")
        await set_state(prefect, cancelled_run, "FAILED", message="before it began")
        await dropped.lies(box / "failed" / "c.csv.error.json")
        wanted = ["no table for c.csv", "the second time", "before it began"]
        await eventually(lambda: dropped.has_said(cancelled_event, wanted), what=f"the history of the run: {wanted}")
        await prefect.request("POST", f"/flow_runs/{cancelled_run}/set_state", json={"state": retry, "force": False})
        await dropped.lies(box / "c.csv")
        await dropped.completed("c.csv", cancelled_run)

        (box / "failed" / "b.csv").unlink()
        gone = await _call(events.app, "replay", other_event)
        assert "failed/b.csv is gone" in gone.stderr
        assert await world.redis.xlen("sluice:journal") == 3, "a file that is brought back is no new file"


async def test_a_file_comes_back_for_its_dead_letter_and_for_a_rerun_and_goes_back_where_no_run_starts(
    world: World, prefect: PrefectApi, box: Path
) -> None:
    async with _running(world, prefect, box) as dropped:
        event_id, run_id = await dropped.failed("a.csv")
        identity = await world.history.choose(event_id)
        assert await world.returns.bring_back(identity, runs=[run_id])  # whoever asked has ended since
        await dropped.lies(box / "a.csv")
        await world.redis.hset(RUN + run_id, "b", 1)  # long ago
        await world.runs.ask_again([run_id], at_ms=0)
        await dropped.lies(box / "failed" / "a.csv.error.json")

        answer = json.loads((await _call(events.app, "replay", event_id, "--rerun", "--json")).stdout)
        assert (answer["events"], answer["refused"]) == (1, [])
        rerun = await eventually(lambda: dropped._new_run({run_id}))
        await dropped.completed("a.csv", rerun)

        world.use({**OF_FILES, "run": dropped.deployment, "parameters": {"amount": "{{ event.data.missing.deep }}"}})
        (box / "d.csv").write_text("d")
        await dropped.lies(box / "failed" / "d.csv.error.json")
        (letter,) = await world.dead.search(_every_letter(), limit=5)
        world.use({**OF_FILES, "run": dropped.deployment})
        replayed = await _call(dead.app, "replay", letter.id)
        assert replayed.exit_code == 0, replayed.output
        mended = await eventually(lambda: dropped._new_run({run_id, rerun}))
        assert (box / "d.csv").exists()
        await dropped.completed("d.csv", mended)


async def test_a_file_that_stays_where_it_is_is_tried_again_where_it_is(
    world: World, prefect: PrefectApi, box: Path
) -> None:
    async with _running(world, prefect, box, on_success="keep", on_failure="keep") as dropped:
        (box / "a.csv").write_text("a")
        run_id = await eventually(lambda: dropped._new_run(set()))
        await set_state(prefect, run_id, "CRASHED", message="no memory")
        await eventually(lambda: _numbers(world, failed=1))
        assert (await _call(events.app, "replay", "--failed")).exit_code == 0
        await dropped.is_in(run_id, "AwaitingRetry")
        await set_state(prefect, run_id, "COMPLETED")
        await eventually(lambda: _numbers(world, done=1, failed=0))
        assert (box / "a.csv").read_text() == "a"


async def _numbers(world: World, **wanted: int) -> bool:
    numbers = await Ledger(world.redis, world.journal_settings, QUICK).numbers("inbox")
    return {name: numbers.get(name, 0) for name in wanted} == wanted


def _every_letter() -> Any:
    from services.store.dead_letters import LetterQuery

    return LetterQuery()
