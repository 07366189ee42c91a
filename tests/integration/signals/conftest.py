"""A whole resumer on the session's servers, and flows that wait."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import json
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from config.settings import RedisSettings, ResumerSettings
from events.dead_letter import DeadLetter
from events.signal import signal_from_mapping
from events.untrusted_json import Limits
from services.prefect_api.client import PrefectApi, connect
from services.prefect_api.waiting import WaitingRuns
from services.signals.applier import Applier
from services.signals.resumer import Resumer, build_resumer
from services.signals.submission import SignalSubmission
from services.store.connection import AsyncRedis, connect_sync
from services.store.signals.signal_record import SignalRecord
from services.store.signals.signals import SignalStore
from services.store.signals.waits import Waits
from sluice.protocol import form, form_key, keyset, opened, pause_key, response_key, shown_form
from tests.integration.signals.deployed import Deployed
from tests.support.waiting import eventually

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """An async flow that Prefect runs on the test's own loop leaves a socket of Prefect's client to the collector."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    yield
    gc.collect()  # here, where the warning is expected, and not in somebody else's test


FINAL = ("applied", "duplicate", "late", "rejected", "expired", "unknown-run")


class Letters:
    def __init__(self) -> None:
        self.kept: dict[str, DeadLetter] = {}

    async def add(self, letter: DeadLetter) -> None:
        self.kept[letter.id] = letter


class Book:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str, str]] = []

    async def signal(self, event_id: str, signal_id: str, outcome: str, *, rule: str | None = None) -> None:
        self.lines.append((event_id, signal_id, outcome))


@dataclass
class Desk:
    """What a test does with signals."""

    submission: SignalSubmission
    store: SignalStore
    runs: WaitingRuns
    api: PrefectApi
    hints: Waits
    letters: Letters = field(default_factory=Letters)
    book: Book = field(default_factory=Book)

    async def send(self, **message: Any) -> str:
        """Submit a signal and answer its id."""
        signal = signal_from_mapping(message)
        await self.submission.submit(signal, origin="test")
        return signal.id

    async def send_quietly(self, **message: Any) -> str:
        """Record a signal for which no job is made."""
        signal = signal_from_mapping(message)
        await self.store.submit(signal, "test")
        return signal.id

    async def outcome(self, signal_id: str, *, of: Sequence[str] = FINAL, within: float = 15) -> SignalRecord:
        record = await self.store.outcome(signal_id, within, of=of)
        assert record is not None
        assert record.status in of, f"{record.status}: {record.reason}"
        return record

    async def ask(self, **message: Any) -> SignalRecord:
        """Submit a signal and wait for what became of it, buffered included."""
        return await self.outcome(await self.send(**message), of=(*FINAL, "buffered"))

    async def park(
        self,
        *keys: str,
        name: str = "w",
        schema: dict[str, Any] | None = None,
        run_id: str | None = None,
        shown: bool = True,
        tags: Sequence[str] = (),
    ) -> str:
        """A run that waits as `sluice.wait_for_signal` makes it wait, without a process; a new one or ``run_id``.

        Unless ``shown``, its form is only kept, as in the moment when it has just been paused.
        """
        if run_id is None:
            flow = await self.api.request("POST", "/flows/", json={"name": "parked"})
            created = await self.api.request(
                "POST", "/flow_runs/", json={"flow_id": flow["id"], "state": {"type": "RUNNING"}}
            )
            run_id = created["id"]
        pause = pause_key(name, 1)
        wanted = schema or {"type": "object", "properties": {}, "additionalProperties": True}
        kept = {"schema": form(wanted, pause), "description": "Waits"}
        for key, value in {form_key(pause): kept, **(shown_form(pause, kept) if shown else {})}.items():
            body = {"key": key, "value": json.dumps(value)}
            await self.api.request("POST", f"/flow_runs/{run_id}/input", json=body)
        await self.api.request(
            "PATCH", f"/flow_runs/{run_id}", json={"tags": [*tags, *(f"awaits:{key}" for key in keys)]}
        )
        details = {"pause_key": pause, "run_input_keyset": keyset(pause, keys=keys)}
        await self.set_state(run_id, "PAUSED", state_details=details)
        return run_id

    async def set_state(self, run_id: str, kind: str, **fields: Any) -> None:
        body = {"state": {"type": kind, **fields}, "force": True}
        answer = await self.api.request("POST", f"/flow_runs/{run_id}/set_state", json=body)
        assert answer["status"] == "ACCEPT", answer

    async def answer(self, run_id: str, name: str = "w") -> Any:
        """What the parked run was resumed with."""
        key = response_key(pause_key(name, 1))
        found = (await self.runs.inputs(run_id, [key])).get(key)
        return None if found is None else opened(found)[0]

    async def resumes(self, run_id: str) -> int:
        """How often the run left a paused state."""
        stays = await self.runs.stays(run_id)
        return sum(1 for stay in stays if stay.state_type == "PAUSED" and stay.left is not None)

    async def told(self, run_id: str, *outcomes: str, about: str = "prefect.flow-run") -> list[dict[str, Any]]:
        """The events of Sluice on the run's page, or about something else, once those outcomes are among them."""
        narrowed = {"event": {"prefix": ["sluice.signal."]}, "resource": {"id": [f"{about}.{run_id}"]}}

        async def probe() -> list[dict[str, Any]]:
            found = await self.api.request("POST", "/events/filter", json={"filter": narrowed})
            names = {event["event"].rpartition(".")[2] for event in found["events"]}
            return found["events"] if names >= set(outcomes) else []

        return await eventually(probe, what=f"{outcomes} on the page of {run_id}")

    async def waiting(self, run_id: str, pause: str | None = None) -> None:
        """Return once the run waits."""

        async def probe() -> bool:
            run = await self.runs.read(run_id)
            return run.waiting and (pause is None or run.pause_key == pause)

        await eventually(probe, what=f"run {run_id} waits")

    async def state(self, run_id: str) -> dict[str, Any]:
        run = await self.api.request("GET", f"/flow_runs/{run_id}")
        return {"type": run["state"]["type"], "message": run["state"]["message"], "tags": run["tags"]}


def settings(**changes: Any) -> ResumerSettings:
    return ResumerSettings(**{"poll_seconds": 2.0, "lease_seconds": 8.0, **changes})


@asynccontextmanager
async def running(parts: Resumer) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(part.run()) for part in parts.parts().values()]
    watch = parts.parts()["watch"]

    async def ready() -> bool:
        return bool(watch.status()["ready"])

    try:
        await eventually(ready)
        yield
        for task in tasks:
            assert not task.done(), task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=10)


@asynccontextmanager
async def desk(api: PrefectApi, redis: AsyncRedis, valkey_url: str) -> AsyncIterator[Desk]:
    """The desk without a resumer behind it, on the Prefect server of ``api``."""
    rq_redis = connect_sync(valkey_url, RedisSettings())
    store = SignalStore(redis, settings())
    yield Desk(
        submission=SignalSubmission(store=store, rq_redis=rq_redis, limits=Limits()),
        store=store,
        runs=WaitingRuns(api),
        api=api,
        hints=Waits(redis),
    )
    rq_redis.close()


def resumer_for(submission: Desk, redis: AsyncRedis, valkey_url: str) -> contextlib.AbstractAsyncContextManager[None]:
    """A whole resumer behind the desk."""
    parts = build_resumer(
        redis=redis,
        connect_rq=lambda: connect_sync(valkey_url, RedisSettings()),
        api=submission.api,
        settings=settings(),
        dead=submission.letters,
        history=submission.book,
        instance=uuid.uuid4().hex[:8],
    )
    return running(parts)


@pytest_asyncio.fixture
async def submission(redis: AsyncRedis, valkey_url: str, prefect_url: str) -> AsyncIterator[Desk]:
    """The desk without a resumer behind it."""
    async with connect() as api, desk(api, redis, valkey_url) as made:
        yield made


@pytest.fixture
def resumer_later(
    submission: Desk, redis: AsyncRedis, valkey_url: str
) -> Callable[[], contextlib.AbstractAsyncContextManager[None]]:
    """A whole resumer that the test starts when it wants one."""
    return lambda: resumer_for(submission, redis, valkey_url)


@pytest_asyncio.fixture
async def resumer(
    submission: Desk, resumer_later: Callable[[], contextlib.AbstractAsyncContextManager[None]]
) -> AsyncIterator[Desk]:
    """The desk with a whole resumer behind it."""
    async with resumer_later():
        yield submission


def new_key() -> str:
    return f"key-{uuid.uuid4().hex[:8]}"


def in_thread(work: Callable[[], Any]) -> asyncio.Future[Any]:
    """Run in a daemon thread: a flow that hangs must not hold up the end of the tests."""
    loop = asyncio.get_running_loop()
    ending: asyncio.Future[Any] = loop.create_future()

    def done(value: Any, error: BaseException | None) -> None:
        if ending.done():
            return
        if error is None:
            ending.set_result(value)
        else:
            ending.set_exception(error)

    def run() -> None:
        try:
            value, error = work(), None
        except BaseException as caught:  # noqa: BLE001 - Prefect's Pause and Abort are some
            value, error = None, caught
        with contextlib.suppress(RuntimeError):  # the test is over
            loop.call_soon_threadsafe(done, value, error)

    threading.Thread(target=run, daemon=True).start()
    return ending


@pytest_asyncio.fixture
async def deployed(resumer: Desk, checkout: Path, tmp_path: Path) -> AsyncIterator[Deployed]:
    made = Deployed(resumer, checkout, tmp_path / "answers.txt", key=new_key())
    yield made
    await made.end()


class Counted:
    """Prefect, with a list of what it was asked."""

    def __init__(self, runs: WaitingRuns) -> None:
        self._runs = runs
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.asked.append(name)
        return getattr(self._runs, name)


@pytest.fixture
def prefect(submission: Desk) -> Counted:
    return Counted(submission.runs)


@pytest.fixture
def applier(submission: Desk, prefect: Counted) -> Applier:
    return Applier(store=submission.store, runs=prefect, hints=submission.hints, settings=settings())


async def heard(submission: Desk, *run_ids: str) -> None:
    await submission.hints.began([await submission.runs.read(run_id) for run_id in run_ids])


async def heard_again(submission: Desk, run_id: str) -> None:
    """As if the watch had not been told yet that the wait is over."""
    stay = [stay for stay in await submission.runs.stays(run_id) if stay.state_type == "PAUSED"][-1]
    run = await submission.runs.read(run_id)
    paused = dataclasses.replace(
        run,
        state_id=stay.state_id,
        state_type="PAUSED",
        entered=stay.entered,
        pause_key=stay.pause_key,
        keyset=stay.keyset,
    )
    await submission.hints.began([paused])


async def resumed_in_prefect(submission: Desk, run_id: str) -> None:
    await submission.api.request("POST", f"/flow_runs/{run_id}/resume", json={"run_input": {"by": "hand"}})
