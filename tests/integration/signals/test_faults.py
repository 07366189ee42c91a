"""Servers that go away and come back, many resumers at once, a full buffer, an event stream that says nothing."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from config.settings import RedisSettings
from events.errors import NotFound
from events.signal import Outcome
from events.untrusted_json import Limits
from services.local.embedded_servers import claim_port
from services.prefect_api import events
from services.prefect_api.client import connect as connect_prefect
from services.prefect_api.events import Connected
from services.prefect_api.run_view import RunView
from services.prefect_api.waiting import WaitingRuns
from services.signals.applier import Applier
from services.signals.resumer import build_resumer
from services.signals.submission import SignalSubmission
from services.store.connection import AsyncRedis, connect, connect_sync
from services.store.signals.signal_record import Mark
from services.store.signals.signals import SignalStore
from services.store.signals.waits import Waits
from tests.integration.signals.conftest import Desk, new_key, running, settings
from tests.integration.signals.test_waits import Running
from tests.support import waiting_flows as flows
from tests.support.prefects import start_migrated
from tests.support.valkeys import own_valkey
from tests.support.waiting import eventually


def submission_on(redis: AsyncRedis, url: str, submission: Desk) -> Desk:
    store = SignalStore(redis, settings())
    rq_redis = connect_sync(url, RedisSettings())
    return Desk(
        submission=SignalSubmission(store=store, rq_redis=rq_redis, limits=Limits()),
        store=store,
        runs=submission.runs,
        api=submission.api,
        hints=Waits(redis),
    )


async def test_of_many_resumers_the_first_signal_in_order_wins(submission: Desk, redis: AsyncRedis) -> None:
    appliers = [
        Applier(store=SignalStore(redis, settings()), runs=submission.runs, hints=submission.hints, settings=settings())
        for _ in range(4)
    ]
    for _ in range(3):
        run_id = await submission.park(new_key())
        sent = [await submission.send_quietly(run_id=run_id, input={"n": number}) for number in range(4)]
        await asyncio.gather(*(applier.apply(one) for applier, one in zip(appliers, reversed(sent), strict=True)))
        statuses = [(await submission.outcome(signal_id)).status for signal_id in sent]
        assert statuses == ["applied", "duplicate", "duplicate", "duplicate"]
        assert await submission.answer(run_id) == {"n": 0}
        assert await submission.resumes(run_id) == 1


class Uncommitted(WaitingRuns):
    """Prefect has told of a run and does not show it yet."""

    def __init__(self, submission: Desk, times: int) -> None:
        super().__init__(submission.api)
        self.times = times

    async def read(self, run_id: str) -> RunView:
        if self.times:
            self.times -= 1
            raise NotFound("Prefect answered 404")
        return await super().read(run_id)


async def test_a_run_that_prefect_does_not_show_yet_is_not_unknown(submission: Desk, redis: AsyncRedis) -> None:
    run_id = await submission.park(new_key())
    uncommitted = Uncommitted(submission, times=3)
    applier = Applier(
        store=SignalStore(redis, settings()), runs=uncommitted, hints=submission.hints, settings=settings()
    )
    signal_id = await submission.send_quietly(run_id=run_id, input={"n": 1})
    await applier.apply(signal_id)
    assert uncommitted.times == 0
    assert (await submission.outcome(signal_id)).status == "applied"
    assert await submission.answer(run_id) == {"n": 1}


class Meanwhile(WaitingRuns):
    """While it is asked who waits for a key, another resumer begins to apply the signal to a run."""

    def __init__(self, submission: Desk, key: str, signal_id: str) -> None:
        super().__init__(submission.api)
        self.submission, self.key, self.signal_id = submission, key, signal_id
        self.run_id = ""

    async def waiting_for(self, keys: Iterable[str]) -> list[RunView]:
        found = await super().waiting_for(keys)
        self.run_id = await self.submission.park(self.key)
        record = await self.submission.store.get(self.signal_id)
        assert record is not None
        wait = (await self.read(self.run_id)).wait_id
        async with self.submission.store.busy(f"run {self.run_id}") as busy:
            assert await self.submission.store.claim(record, self.run_id, Mark(wait=wait), busy)
        return found


async def test_a_signal_that_another_resumer_is_applying_is_not_decided(submission: Desk, redis: AsyncRedis) -> None:
    key = new_key()
    answered = await submission.park(key)
    first, second = [await submission.send_quietly(key=key, deliver="one") for _ in range(2)]
    plain = Applier(store=submission.store, runs=submission.runs, hints=submission.hints, settings=settings())
    await plain.apply(first)
    assert await submission.resumes(answered) == 1
    meanwhile = Meanwhile(submission, key, second)
    await Applier(store=submission.store, runs=meanwhile, hints=Waits(redis), settings=settings()).apply(second)
    record = await submission.store.get(second)
    assert record is not None
    assert record.open, record.reason
    await plain.apply(second)
    assert (await submission.outcome(second)).status == "applied"
    assert await submission.resumes(meanwhile.run_id) == 1


async def test_an_outcome_waits_for_who_is_applying_the_signal(submission: Desk) -> None:
    """In the script itself: another resumer may begin between our look at the record and our decision."""
    signal_id = await submission.send_quietly(key=new_key())
    record = await submission.store.get(signal_id)
    assert record is not None
    mark = Mark(wait="a-wait")
    async with submission.store.busy("run a-run") as busy:
        assert await submission.store.claim(record, "a-run", mark, busy)
    assert not await submission.store.decide(record, Outcome.DUPLICATE, "too early")
    await submission.store.settle(record, "a-run", mark.model_copy(update={"outcome": Outcome.APPLIED}))
    assert await submission.store.decide(record, Outcome.APPLIED, "in the end")


async def test_of_many_resumers_one_delivers_to_one(submission: Desk, redis: AsyncRedis) -> None:
    appliers = [
        Applier(store=SignalStore(redis, settings()), runs=submission.runs, hints=submission.hints, settings=settings())
        for _ in range(3)
    ]
    key = new_key()
    runs = [await submission.park(key) for _ in range(4)]
    sent = [await submission.send_quietly(key=key, deliver="one") for _ in range(3)]
    await asyncio.gather(*(applier.apply(one) for applier, one in zip(appliers, sent, strict=True)))
    assert [(await submission.outcome(signal_id)).status for signal_id in sent] == ["applied"] * 3
    assert [await submission.resumes(run_id) for run_id in runs] == [1, 1, 1, 0]


async def test_buffered_signals_outlive_a_kill_of_valkey_and_the_resumer_goes_on(
    submission: Desk, tmp_path: Path
) -> None:
    with own_valkey(tmp_path) as valkey:
        redis = connect(valkey.url, RedisSettings())
        here = submission_on(redis, valkey.url, submission)
        resumer = build_resumer(
            redis=redis,
            connect_rq=lambda: connect_sync(valkey.url, RedisSettings()),
            api=submission.api,
            settings=settings(),
            dead=here.letters,
            history=here.book,
            instance="r",
        )
        async with running(resumer):
            key = new_key()
            record = await here.ask(key=key, input={"n": 1})
            assert record.status == "buffered"
            valkey.kill()
            run_id = await here.park(key)
            valkey.start()

            async def applied() -> bool:
                return await submission.answer(run_id) == {"n": 1}

            await eventually(applied)
            assert (await here.outcome(record.signal.id)).status == "applied"
            later = await here.park(new_key())
            assert (await here.ask(run_id=later)).status == "applied"
        await redis.aclose()


async def test_a_signal_whose_job_was_lost_is_found(resumer: Desk) -> None:
    """Recorded, and then the process died before there was a job."""
    run_id = await resumer.park(new_key())
    signal_id = await resumer.send_quietly(run_id=run_id)
    assert (await resumer.outcome(signal_id)).status == "applied"


async def test_the_poll_finds_what_the_event_stream_did_not_tell(
    submission: Desk, redis: AsyncRedis, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silence(**_: object) -> AsyncIterator[Connected]:
        yield Connected()
        await asyncio.Event().wait()

    monkeypatch.setattr(events, "state_changes", silence)
    parts = build_resumer(
        redis=redis,
        connect_rq=lambda: connect_sync(valkey_url, RedisSettings()),
        api=submission.api,
        settings=settings(poll_seconds=0.5),
        dead=submission.letters,
        history=submission.book,
        instance="deaf",
    )
    async with running(parts):
        key = new_key()
        by_key = await submission.ask(key=key)
        run_id = await submission.park("unused")
        assert (await submission.ask(run_id=run_id)).status == "applied"
        by_run = await submission.ask(run_id=run_id)
        assert (by_key.status, by_run.status) == ("buffered", "buffered")
        await submission.park(key)
        await submission.park(name="again", run_id=run_id)
        assert (await submission.outcome(by_key.signal.id)).status == "applied"
        assert (await submission.outcome(by_run.signal.id)).status == "applied"


async def test_a_full_buffer_rejects_further_early_signals_and_keeps_them_as_letters(
    submission: Desk, redis: AsyncRedis
) -> None:
    small = settings(max_buffered=2)
    applier = Applier(store=SignalStore(redis, small), runs=submission.runs, hints=submission.hints, settings=small)
    sent = [await submission.send_quietly(key=new_key()) for _ in range(3)]
    for signal_id in sent:
        await applier.apply(signal_id)
    records = [await submission.store.get(signal_id) for signal_id in sent]
    assert [record.status for record in records if record] == ["buffered", "buffered", "rejected"]
    assert records[2] is not None
    assert "max_buffered=2" in records[2].reason


async def test_old_records_are_forgotten_and_open_ones_are_not(submission: Desk, redis: AsyncRedis) -> None:
    small = settings(max_records=100)
    store = SignalStore(redis, small)
    applier = Applier(store=store, runs=submission.runs, hints=submission.hints, settings=small)
    kept = await submission.send_quietly(key=new_key())
    await applier.apply(kept)
    over = await submission.park(new_key())
    await submission.set_state(over, "COMPLETED")
    for _ in range(105):
        await applier.apply(await submission.send_quietly(run_id=over))
    assert await store.forget() > 0
    assert len(await store.newest(1000)) == 100
    record = await store.get(kept)
    assert record is not None
    assert record.status == "buffered"


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_prefect_may_be_restarted_between_pause_and_resume(
    redis: AsyncRedis, valkey_url: str, prefect_url: str, tmp_path: Path
) -> None:
    port = claim_port(0, "a free port")
    server, url = start_migrated(tmp_path, port)
    with temporary_settings({PREFECT_API_URL: url}):
        try:
            async with connect_prefect() as api:
                rq_redis = connect_sync(valkey_url, RedisSettings())
                store = SignalStore(redis, settings())
                here = Desk(
                    submission=SignalSubmission(store=store, rq_redis=rq_redis, limits=Limits()),
                    store=store,
                    runs=WaitingRuns(api),
                    api=api,
                    hints=Waits(redis),
                )
                parts = build_resumer(
                    redis=redis,
                    connect_rq=lambda: connect_sync(valkey_url, RedisSettings()),
                    api=api,
                    settings=settings(),
                    dead=here.letters,
                    history=here.book,
                    instance="r",
                )
                async with running(parts):
                    context = contextvars.copy_context()
                    flow = Running(here, lambda *args: context.run(flows.approving, *args), key := new_key())
                    await flow.waits()
                    server.stop()
                    early = await here.send(key=key, input={"n": 1})
                    server, _ = await asyncio.to_thread(start_migrated, tmp_path, port)
                    assert (await here.outcome(early, within=60)).status == "applied"
                    assert await asyncio.wait_for(flow.ending, 60) == {"n": 1}
                rq_redis.close()
        finally:
            server.stop()
