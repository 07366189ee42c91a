"""What is counted is counted once, under the listener's name."""

from __future__ import annotations

from prometheus_client import generate_latest

from services.common.metrics import REGISTRY
from services.listeners.message_intake import Message
from services.operations.metrics_page import _numbers
from services.store.connection import AsyncRedis
from tests.support.sources import Door, Letters, cloudevent, intake


async def test_messages_are_counted_as_taken_in_and_as_rejected(redis: AsyncRedis) -> None:
    taking = intake(Door(redis), Letters(), listener="redis:counted")
    await taking.accept([Message(cloudevent("a"), "1", "a test"), Message(b"bad", "2", "a test")])
    assert REGISTRY.get_sample_value("sluice_messages_received_total", {"listener": "redis:counted"}) == 2
    rejected = {"listener": "redis:counted", "code": "not-json"}
    assert REGISTRY.get_sample_value("sluice_messages_rejected_total", rejected) == 1


def test_a_report_with_a_number_that_no_float_holds_costs_that_number_alone() -> None:
    assert dict(_numbers({"waiting": 3, "created": 10**400, "parts": {"depth": 1.5}})) == {
        "waiting": 3,
        "parts.depth": 1.5,
    }


def test_every_metric_is_sluices_own() -> None:
    names = [line.split()[2] for line in generate_latest(REGISTRY).decode().splitlines() if line.startswith("# TYPE")]
    assert names
    assert all(name.startswith("sluice_") for name in names)
