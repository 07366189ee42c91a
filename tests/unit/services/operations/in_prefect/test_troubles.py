"""The problems of an installation as events of Prefect: what each is about, and how its end is told."""

from __future__ import annotations

from typing import Any

import pytest

from services.common.reasons import Reason, reason
from services.operations.in_prefect.troubles import troubles_of
from services.operations.readiness import Readiness, RoleReadiness


def readiness(*reasons: Reason, parts: dict[str, Any] | None = None, why: Reason | None = None) -> Readiness:
    """Of the role `listeners`, which is not ready for the reason ``why``, if it has one."""
    reports = ({"parts": parts or {}},)
    role = RoleReadiness(why is None, why and why.message, (why,) if why else (), reports, ())
    return Readiness(reasons, {"listeners": role})


def test_an_installation_that_is_well_has_none() -> None:
    assert troubles_of(readiness(reason("disk-low", "little room"))) == {}


def test_one_that_is_not_ready_says_why_with_the_first_remedy() -> None:
    found = readiness(reason("disk-low", "little room"), reason("rule-held", "held"), reason("watch-gone", "gone"))
    (trouble,) = troubles_of(found).values()
    assert (trouble.began, trouble.ended, trouble.subject) == (
        "sluice.installation.not-ready", "sluice.installation.ready", "sluice.installation"
    )  # fmt: skip
    assert (trouble.code, trouble.message, trouble.needs_time) == ("rule-held", "held; gone", True)


def test_a_role_that_is_down_is_one_of_its_own() -> None:
    found = troubles_of(readiness(why=reason("role-silent", "it is silent")))
    (trouble,) = found.values()
    assert (trouble.subject, trouble.code, trouble.message) == ("sluice.role.listeners", "role-silent", "it is silent")
    assert trouble.needs_time


@pytest.mark.parametrize(
    ("code", "began"),
    [
        ("watch-gone", "sluice.watch.gone"),
        ("watch-not-writable", "sluice.watch.not-writable"),
        ("watch-not-heard", "sluice.watch.deaf"),
        ("directories-unreadable", "sluice.watch.unreadable"),
    ],
)
def test_what_is_wrong_with_a_watch_is_told_at_once_about_it(code: str, began: str) -> None:
    (trouble,) = troubles_of(readiness(parts={"files:inbox": {"reasons": {code: "because", "disk-low": "x"}}})).values()
    assert (trouble.began, trouble.ended, trouble.subject) == (began, "sluice.watch.back", "sluice.watch.inbox")
    assert (trouble.message, trouble.needs_time) == ("because", False)


def test_each_rule_that_is_held_is_told() -> None:
    held = [{"rule": name, "waiting": 3, "reason": "most runs fail"} for name in ("a", "b")]
    found = troubles_of(readiness(parts={"dispatcher": {"held": held}, "other": {"held": held}}))
    assert set(found) == {"sluice.rule.held sluice.rule.a", "sluice.rule.held sluice.rule.b"}
    assert next(iter(found.values())).message == "rule a holds 3 runs: most runs fail"


def test_parts_of_another_version_are_passed_over() -> None:
    parts = {"files:inbox": {"reasons": ["watch-gone"]}, "dispatcher": {"held": "many"}, "x": {}}
    assert troubles_of(readiness(parts=parts)) == {}


def test_a_problem_says_what_to_do_and_its_end_how_long_it_was() -> None:
    found = troubles_of(readiness(reason("canary-failed", "no step")))
    trouble = found["sluice.canary.failed sluice.canary"]
    assert set(trouble.payload()) == {"code", "message", "remedy"}
    assert trouble.payload(lasted_seconds=1.6) == {
        "code": trouble.code,
        "message": trouble.message,
        "lasted_seconds": 2,
    }
