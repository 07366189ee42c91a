"""The workers: what they ignore, how they end, and what garbage in RQ's registries does not do to them."""

import logging
import threading

import pytest
from structlog.testing import capture_logs

from config.settings import RedisSettings
from events.errors import TransientError
from services.job_queues.job_gate import APPLY_SIGNAL
from services.job_queues.queues import enqueue, queue
from services.job_queues.rq_keys import RESUME
from services.job_queues.workers import bridge_logs, simple_worker
from services.store.connection import connect_sync
from services.store.inspection.looks import WANTED
from services.store.unreadable import noted
from tests.support.waiting import wait_until
from tests.unit.services.job_queues.conftest import drain

pytestmark = pytest.mark.usefixtures("redis")


def test_an_idle_worker_in_a_thread_ends_when_it_is_woken(redis_sync, monkeypatch):
    monkeypatch.setattr("services.job_queues.workers._WORKER_TTL_SECONDS", 75)  # it waits a minute for a job
    begun = threading.Event()
    worker = simple_worker([RESUME], redis_sync, "idle-test", begun=begun.set)
    thread = threading.Thread(target=worker.work)
    thread.start()
    assert begun.wait(10)

    def gone() -> bool:
        worker.wake()
        return not thread.is_alive()

    worker.stop()
    wait_until(gone, what="the worker to end")


def test_a_worker_in_a_thread_stops_soon_after_it_is_told_to(valkey_url, redis_sync, applied):
    worker = simple_worker([RESUME], redis_sync, "thread-test")
    thread = threading.Thread(target=worker.work)
    thread.start()
    client = connect_sync(valkey_url, RedisSettings())
    enqueue(queue(RESUME, client), APPLY_SIGNAL, "one", job_id="signal-1", timeout_seconds=5)
    wait_until(lambda: applied == ["one"], what="the job to run")
    worker.stop()
    thread.join(5)
    assert not thread.is_alive()
    client.close()


def test_a_suspension_that_anybody_may_set_stops_no_worker(redis_sync, applied):
    redis_sync.set("rq:suspended", 1)
    enqueue(queue(RESUME, redis_sync), APPLY_SIGNAL, "one", job_id="signal-1", timeout_seconds=5)
    drain(redis_sync)
    assert applied == ["one"]


@pytest.mark.parametrize("message", [{}, {"data": b"no json"}, {"data": b"[]"}, {"data": b'{"command": "x"}'}])
def test_a_malformed_command_is_ignored(redis_sync, message):
    simple_worker([RESUME], redis_sync, "commanded").handle_payload(message)


def test_garbage_in_a_registry_leaves_the_worker_alive_and_is_looked_at(redis_sync, applied):
    redis_sync.sadd(f"rq:workers:{RESUME}", "sluice:journal")
    noted.take()
    worker = simple_worker([RESUME], redis_sync, "tidy")
    worker.run_maintenance_tasks()
    assert noted.take()[0] == {f"rq:workers:{RESUME}".encode()}
    assert redis_sync.exists(WANTED), "the router is asked to look at everything"
    enqueue(queue(RESUME, redis_sync), APPLY_SIGNAL, "one", job_id="signal-1", timeout_seconds=5)
    worker.work(burst=True)
    assert applied == ["one"]


def test_an_outage_of_redis_is_one_warning_without_a_traceback():
    bridge_logs()
    bridge_logs()
    with capture_logs() as logs:
        for error in (TransientError("away"), ValueError("a fault")):
            logging.getLogger("rq.worker").error("it failed", exc_info=error)
    outage, fault = logs
    assert (outage["log_level"], outage["error"], outage.get("exc_info")) == ("warning", "away", None)
    assert (fault["log_level"], bool(fault["exc_info"])) == ("error", True)
