"""The reasons why an installation is not ready: each has a level and a remedy, and is told in one way."""

from __future__ import annotations

import pytest

from services.common.reasons import REASONS, SAID_TO_ANYONE, Level, obstacles, reason, told


@pytest.mark.parametrize("code", REASONS)
def test_each_reason_has_what_to_do(code: str) -> None:
    found = reason(code, "because", role="listeners")
    assert (found.code, found.level, found.message, found.role) == (code, REASONS[code].level, "because", "listeners")
    assert found.remedy
    assert not found.remedy.endswith(".")


def test_what_anybody_is_told_names_only_parts_of_sluice() -> None:
    assert set(REASONS) >= SAID_TO_ANYONE
    assert {REASONS[code].level for code in SAID_TO_ANYONE} == {Level.NOT_READY}


def test_a_code_of_another_version_counts_as_a_degradation() -> None:
    found = reason("from-the-future", "because")
    assert (found.code, found.level) == ("from-the-future", Level.DEGRADED)


def test_what_one_instance_lacks_and_another_does_is_a_degradation() -> None:
    assert reason("watch-gone", "because").level is Level.NOT_READY
    assert reason("watch-gone", "because", everywhere=False).level is Level.DEGRADED
    assert reason("redis-unreachable", "because", everywhere=False).level is Level.NOT_READY


def test_a_part_without_problems_has_nothing_to_tell() -> None:
    assert told({}) == told({"watch-gone": None, "retrying": ""}) == {}


def test_a_part_tells_each_sentence_once() -> None:
    assert told({"watch-gone": "it is gone", "retrying": "it is gone", "disk-low": "little room"}) == {
        "degraded": "it is gone; little room",
        "reasons": {"watch-gone": "it is gone", "disk-low": "little room"},
    }


def test_only_what_keeps_an_instance_from_working_is_an_obstacle() -> None:
    parts = {
        "well": {"ready": True},
        "slow": told({"disk-low": "little room"}),
        "files": {"ready": True, **told({"watch-gone": "it is gone", "disk-full": "no room"})},
        "starting": {"ready": False},
        "newer": {"reasons": {"from-the-future": "because"}},
    }
    assert obstacles(parts) == ["files: it is gone; no room", "starting: not ready yet"]
