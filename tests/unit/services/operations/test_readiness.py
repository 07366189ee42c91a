"""What readiness follows from which reports."""

from __future__ import annotations

import asyncio
import socket
from datetime import UTC, datetime
from typing import Any

from config.settings import ROLES
from services.operations.readiness import CachedReadiness, Readiness, judge

NOW = datetime.now(UTC).timestamp()


def report(role: str, instance: str = "host-1", *, ready: bool = True, silent: float | None = None) -> dict[str, Any]:
    started = NOW - 100 if silent is None else NOW - 1000
    return {
        "role": role,
        "instance": instance,
        "pid": 1,
        "started": datetime.fromtimestamp(started, UTC).isoformat(),
        "ready": ready,
        "degraded": [] if ready else ["part: it is away"],
        "parts": {"good": {}, "part": {"ready": ready}},
        "at": NOW - (silent or 0),
        "silent_seconds": silent,
    }


def all_but(*missing: str) -> list[dict[str, Any]]:
    return [report(role) for role in ROLES if role not in missing]


def test_all_roles_are_expected_and_ready() -> None:
    found = judge(all_but(), expected=ROLES)
    assert found.ready
    assert found.problems == ()
    assert list(found.roles) == list(ROLES)


def test_a_role_that_was_never_started_is_a_problem() -> None:
    found = judge(all_but("executor"), expected=ROLES)
    assert found.problems == ("role executor is not ready: no instance of it runs",)


def test_a_role_that_is_not_expected_may_be_absent() -> None:
    assert judge(all_but("api"), expected=[role for role in ROLES if role != "api"]).ready


def test_a_role_that_is_not_expected_counts_once_it_has_reported() -> None:
    silent = report("api", "far-9", silent=34)
    found = judge([*all_but("api"), silent], expected=("router",))
    assert found.problems == ("role api is not ready: far-9 has been silent for more than 30 s",)


def test_a_silent_role_is_not_ready_and_says_since_when() -> None:
    found = judge([*all_but("listeners"), report("listeners", silent=15)], expected=ROLES)
    assert found.problems == ("role listeners is not ready: host-1 has been silent for more than 10 s",)
    assert not found.roles["listeners"].instances


def test_a_silent_instance_beside_a_ready_one_is_told() -> None:
    found = judge([*all_but(), report("executor", "far-2", silent=25)], expected=ROLES)
    assert found.ready
    assert found.degraded == ["role executor: far-2 has been silent for more than 20 s"]


def test_an_instance_that_its_supervisor_has_replaced_is_forgotten() -> None:
    found = judge([*all_but(), report("executor", "host-2", silent=300)], expected=ROLES)
    assert found.ready
    assert found.degraded == []


def test_an_instance_that_is_not_ready_names_the_part() -> None:
    found = judge([*all_but("resumer"), report("resumer", ready=False)], expected=ROLES)
    assert found.problems == ("role resumer is not ready: host-1 is not ready yet (part)",)
    assert found.degraded == ["role resumer: part: it is away"]


def test_what_is_wrong_with_the_servers_counts() -> None:
    assert judge(all_but(), expected=ROLES, problems=["Prefect is away"]).problems == ("Prefect is away",)


def test_a_container_is_healthy_when_its_own_instance_of_the_role_is() -> None:
    here = f"{socket.gethostname()}-17"

    def healthy(*reports: dict[str, Any]) -> bool:
        return judge(reports, expected=ROLES).ready_here("router")

    assert healthy(report("router", "elsewhere-1", ready=False), report("router", here))
    assert not healthy(report("router", "elsewhere-1"), report("router", here, ready=False))
    assert not healthy(report("router", "elsewhere-1"))
    assert not healthy(report("router", here, silent=11))
    assert not healthy()


async def test_readiness_is_asked_for_once_however_many_ask() -> None:
    asked = 0

    async def read() -> Readiness:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return Readiness(())

    cached = CachedReadiness(read)
    assert all(found.ready for found in await asyncio.gather(*(cached.read() for _ in range(20))))
    assert asked == 1
