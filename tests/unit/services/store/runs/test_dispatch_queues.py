"""The dispatch queues as the dispatcher reads them, and what stands in them."""

from __future__ import annotations

import pytest

from events.action import RunDeployment
from services.store.connection import AsyncRedis
from services.store.keys import DISPATCH_QUEUE, DISPATCH_QUEUES
from services.store.runs.dispatch_queues import Dispatch, DispatchQueues, parse_dispatch
from services.store.unreadable import FAULTS


def dispatch(number: int = 1, **options: object) -> Dispatch:
    action = RunDeployment(rule="r", identities=(f"e{number}@x",), deployment="f/d")
    return Dispatch(action, "shop", "order.new", (f"{number}-0",), **options)


@pytest.mark.parametrize("one", [dispatch(), dispatch(file={"path": "/a", "version": "1"}, part=True, trace="00-x")])
def test_a_dispatch_is_read_as_it_was_written(one: Dispatch) -> None:
    assert parse_dispatch(one.to_json().encode()) == one


@pytest.mark.parametrize("payload", ['{"a": 1}', "[]", dispatch().to_json().replace('"1-0"', '"1-0","2-0"')])
def test_what_is_no_dispatch_is_not_read(payload: str) -> None:
    with pytest.raises(FAULTS):
        parse_dispatch(payload.encode())


async def test_queues_are_read_in_order_from_behind_an_entry(redis: AsyncRedis) -> None:
    queues, name = DispatchQueues(redis), dispatch().queue
    for number in (1, 2, 3):
        await redis.xadd(DISPATCH_QUEUE + name, {"d": dispatch(number).to_json()}, id=f"{number}-0")
    await redis.sadd(DISPATCH_QUEUES, name, "no queue")
    assert await queues.names() == [name]
    (found,) = (await queues.read({name: ("1-0", 1)})).values()
    assert [(one.entry, one.dispatch) for one in found] == [("2-0", dispatch(2))]
    assert await queues.lengths([name, "r:f/none"]) == {name: 3, "r:f/none": 0}
    assert await queues.ends([name, "r:f/none"]) == {name: "3-0"}
    assert await queues.oldest_positions() == ["1-0"]
    assert await queues.read({}) == {}
