"""Who executes a run: one instance at a time, and whoever takes over a dead one's."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from config.settings import RedisSettings
from services.store.connection import connect_sync
from services.store.runs.executions import RESTORED, Execution, Executions, note_restored

pytestmark = pytest.mark.usefixtures("redis")
RUN = str(uuid4())


@pytest.fixture
def executions(valkey_url: str) -> Iterator[Executions]:
    with connect_sync(valkey_url, RedisSettings()) as client:
        yield Executions(client, name="test", alive_seconds=60)


def test_a_run_is_one_instances_until_it_is_settled(executions: Executions) -> None:
    first, second = Execution(RUN, "one", 1.5), Execution(RUN, "two", 2.5)
    assert executions.begin(first) is None
    assert executions.begin(second) == first
    executions.end(second)  # which is not the one that has it
    assert executions.holds(RUN)
    executions.end(first)
    assert not executions.holds(RUN)
    assert executions.begin(second) is None
    assert executions.held_by_anyone() == {RUN}


def test_of_two_that_take_over_one_is_quicker(executions: Executions) -> None:
    left = Execution(RUN, "dead", 1.5)
    executions.begin(left)
    executions.owe(left, "crashed", "its machine is gone")
    (owed,) = executions.all()
    assert (owed.ending, owed.message) == ("crashed", "its machine is gone")
    taken = executions.take_over(owed, "one")
    assert taken is not None
    assert taken.instance == "one"
    assert executions.take_over(owed, "two") is None


def test_an_instance_lives_as_long_as_it_says_so(executions: Executions) -> None:
    assert not executions.lives("one")
    executions.live("one")
    assert executions.lives("one")
    executions.leave("one")
    assert not executions.lives("one")


def test_after_a_restore_nobody_lives_and_every_run_has_an_ending(executions: Executions, valkey_url: str) -> None:
    executions.begin(Execution(RUN, "one", 1.5))
    executions.live("one")
    with connect_sync(valkey_url, RedisSettings()) as client:
        note_restored(client, "restored from a backup")
    assert not executions.lives("one")
    assert [(one.ending, one.message) for one in executions.all()] == [(RESTORED, "restored from a backup")]
