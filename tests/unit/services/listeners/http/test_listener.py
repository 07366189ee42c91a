"""The HTTP listener as a real server on loopback, with the real journal behind it."""

from __future__ import annotations

import pytest

from events.errors import ConfigError
from services.operations.readiness import Readiness
from services.store.connection import AsyncRedis
from tests.unit.services.listeners.http.serving import Site, serving


async def test_health_and_metrics_are_told(redis: AsyncRedis) -> None:
    site = Site(redis)
    async with serving(site) as client:
        assert (await client.get("/health/live")).json() == {"live": True}
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.json()["ready"]) == (200, True)
        site.is_ready = False
        answer = await client.get("/health/ready")
        told = answer.json()
        assert [one["code"] for one in told.pop("reasons")] == ["rule-held", "retrying"]
        assert (answer.status_code, told) == (
            503,
            {
                "ready": False,
                "level": "not-ready",
                "problems": ["because"],
                "roles": {"listeners": True},
                "degraded": ["role listeners: files:inbox: /data/inbox is slow"],
                "backlog": None,
            },
        )
        assert (await client.get("/metrics")).text == "sluice_ready 0\n"


async def test_a_fault_of_its_own_is_a_problem_and_stands_in_the_log(
    redis: AsyncRedis, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(redis)

    async def broken() -> Readiness:
        raise ZeroDivisionError("who divides here")

    site._readiness = broken
    site.listener._readiness = broken
    async with serving(site) as client:
        answer = await client.get("/health/ready")
    assert (answer.status_code, answer.json()["code"]) == (500, "fault")
    assert "who divides here" not in answer.text
    assert "who divides here" in capsys.readouterr().out


async def test_other_paths_and_methods_are_problems_too(redis: AsyncRedis) -> None:
    async with serving(Site(redis)) as client:
        assert (await client.get("/nowhere")).json()["status"] == 404
        assert (await client.get("/events")).json()["status"] == 405


async def test_a_taken_port_is_a_configuration_error(redis: AsyncRedis) -> None:
    site, second = Site(redis), Site(redis)
    async with serving(site):
        assert site.listener.port
        second.listener._port = site.listener.port
        with pytest.raises(ConfigError, match="SLUICE_PORTS__API"):
            await second.listener.run()
