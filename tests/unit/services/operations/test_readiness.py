"""What readiness follows from which reports."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pytest

from config.health import CanarySettings, HealthSettings
from config.settings import ROLES
from services.common.reasons import REASONS, Level, reason, told
from services.operations.backlog import Backlog, BacklogPlace
from services.operations.readiness import CachedReadiness, Readiness, judge
from services.store.canary.flights import CanaryFlight

CANARIES = CanarySettings(enabled=True)


def now() -> float:
    """Anew each time: the tests may run long after they were imported."""
    return datetime.now(UTC).timestamp()


def report(role: str, instance: str = "host-1", *, ready: bool = True, silent: float | None = None) -> dict[str, Any]:
    started = now() - 100 if silent is None else now() - 1000
    return {
        "role": role,
        "instance": instance,
        "pid": 1,
        "started": datetime.fromtimestamp(started, UTC).isoformat(),
        "ready": ready,
        "degraded": [] if ready else ["part: it is away"],
        "parts": {"good": {}, "part": {"ready": ready} | ({} if ready else {"degraded": "it is away"})},
        "at": now() - (silent or 0),
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
    away = reason("prefect-unreachable", "Prefect is away")
    assert judge(all_but(), expected=ROLES, servers=[away]).problems == ("Prefect is away",)


def test_a_container_is_healthy_when_its_own_instance_of_the_role_is() -> None:
    here = f"{socket.gethostname()}-17"

    def healthy(*reports: dict[str, Any]) -> bool:
        return judge(reports, expected=ROLES).ready_here("router")

    assert healthy(report("router", "elsewhere-1", ready=False), report("router", here))
    assert not healthy(report("router", "elsewhere-1"), report("router", here, ready=False))
    assert not healthy(report("router", "elsewhere-1"))
    assert not healthy(report("router", here, silent=11))
    gone = report("router", here)
    gone["parts"]["part"] = told({"watch-gone": "the watched folder /in is not there"})
    assert not healthy(gone, report("router", "elsewhere-1"))
    assert not healthy()


async def test_readiness_is_asked_for_once_however_many_ask() -> None:
    asked = 0

    async def read() -> Readiness:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return Readiness()

    cached = CachedReadiness(read)
    assert all(found.ready for found in await asyncio.gather(*(cached.read() for _ in range(20))))
    assert asked == 1


def with_part(role: str, instance: str = "host-1", **part: Any) -> dict[str, Any]:
    return {**report(role, instance), "parts": {"files:inbox": part}}


GONE = told({"watch-gone": "the watched folder /in is not there"})


def codes(found: Readiness, level: Level) -> list[str]:
    return [one.code for one in found.reasons if one.level is level]


def test_a_reason_has_a_code_a_sentence_and_a_remedy_and_turns_readiness_off() -> None:
    found = judge([*all_but("listeners"), with_part("listeners", **GONE)], expected=ROLES)
    assert found.level is Level.NOT_READY
    assert found.problems == ("the watched folder /in is not there",)
    (one,) = found.reasons
    assert (one.code, one.role, one.remedy) == ("watch-gone", "listeners", REASONS["watch-gone"].remedy)
    assert found.as_health(whole=False)["problems"] == ["watch-gone"]
    assert found.as_health(whole=True)["reasons"] == [asdict(one)]


def test_what_another_instance_of_the_role_does_is_a_degradation_and_what_every_one_lacks_is_not() -> None:
    here, there = with_part("listeners", **GONE), with_part("listeners", "far-2")
    found = judge([*all_but("listeners"), here, there], expected=ROLES)
    assert (found.level, codes(found, Level.DEGRADED)) == (Level.DEGRADED, ["watch-gone"])
    found = judge([*all_but("listeners"), here, with_part("listeners", "far-2", **GONE)], expected=ROLES)
    assert codes(found, Level.NOT_READY) == ["watch-gone"]
    other = {**with_part("listeners", "far-2"), "parts": {"files:inbox": {"name": "of another name"}}}
    assert not judge([*all_but("listeners"), here, other], expected=ROLES).ready


def test_refused_rules_are_said_once_although_every_role_reads_the_file() -> None:
    refused = told({"rules-refused": "the changed file is refused"})
    found = judge([with_part(role, **refused) for role in ROLES], expected=ROLES)
    assert found.problems == ("the changed file is refused",)


def test_a_role_that_ends_again_and_again_restarts_in_a_loop_until_it_has_been_steady() -> None:
    ended = [report("router", f"host-{number}", silent=20 + number) for number in range(2, 6)]
    young = {**report("router"), "started": datetime.fromtimestamp(now() - 3, UTC).isoformat()}
    found = judge([*all_but("router"), *ended, young], expected=ROLES)
    assert codes(found, Level.NOT_READY) == ["role-restarting"]
    assert found.roles["router"].restarts == 4
    assert "has ended 4 times within 5 min" in found.problems[0]
    assert judge([*all_but("router"), *ended[1:], young], expected=ROLES).ready
    assert judge([*all_but(), *ended], expected=ROLES).ready


@pytest.mark.parametrize(
    ("backlog", "code"),
    [
        (Backlog(journal=BacklogPlace(2, 61)), "journal-waits"),
        (Backlog(dispatch={"load:a/b": BacklogPlace(2, 301)}), "dispatch-waits"),
        (Backlog(runs=BacklogPlace(2, 901)), "runs-wait"),
        (Backlog(resume=BacklogPlace(2, 61)), "signals-wait"),
    ],
)
def test_what_waits_for_longer_than_its_limit_is_not_ready(backlog: Backlog, code: str) -> None:
    assert codes(judge(all_but(), expected=ROLES, backlog=backlog), Level.NOT_READY) == [code]
    limits = HealthSettings(journal_seconds=999, dispatch_seconds=999, runs_seconds=999, resume_seconds=999)
    assert judge(all_but(), expected=ROLES, backlog=backlog, limits=limits).level is Level.READY


def test_a_rule_that_its_own_limits_keep_back_is_a_degradation() -> None:
    reports = [*all_but("router"), {**report("router"), "parts": {"dispatcher": {"paced": ["load"]}}}]
    found = judge(reports, expected=ROLES, backlog=Backlog(dispatch={"load:a/b": BacklogPlace(2, 301)}))
    assert (found.level, codes(found, Level.DEGRADED)) == (Level.DEGRADED, ["rule-limited"])


def test_what_is_left_over_from_before_is_no_part_of_a_start() -> None:
    left_over = Backlog(journal=BacklogPlace(2, 86_400))
    found = judge([*all_but("listeners"), with_part("listeners", **GONE)], expected=ROLES, backlog=left_over)
    assert (found.ready, found.unstarted) == (False, ())
    assert judge(all_but("listeners"), expected=ROLES, backlog=left_over).unstarted == (
        "role listeners is not ready: no instance of it runs",
    )


def test_a_canary_that_did_not_come_through_is_not_ready_and_names_the_step() -> None:
    def found(flight: CanaryFlight | None, settings: CanarySettings | None = CANARIES) -> Readiness:
        return judge(all_but(), expected=ROLES, canary=flight, canary_settings=settings)

    failed = CanaryFlight(at=now() - 30, failed="resume", seconds={"arrive": 0.1}, instance="host-1")
    assert codes(found(failed), Level.NOT_READY) == ["canary-failed"]
    (problem,) = found(failed).problems
    assert problem.endswith("failed at the step resume: its run was not resumed (resumer, Prefect)")
    assert found(failed).unstarted == ()
    assert found(failed, None).ready
    assert found(CanaryFlight(at=now() - 30, failed=None, seconds={}, instance="host-1")).level is Level.READY
    assert found(None).level is Level.READY
    assert codes(
        found(CanaryFlight(at=now() - 99_999, failed=None, seconds={}, instance="host-1")), Level.NOT_READY
    ) == ["canary-silent"]
