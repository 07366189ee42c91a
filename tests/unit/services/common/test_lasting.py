import time

import pytest

from services.common.lasting import Lasting


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def passes(seconds: float) -> None:
        now[0] += seconds

    return passes


def test_what_is_seen_in_every_look_for_long_enough_is_told(clock):
    seen = Lasting[str](seconds=5)
    assert seen.look(["a", "b"]) == []
    clock(3)
    assert seen.look(["a"]) == []
    clock(2)
    assert seen.look(["a", "b"]) == ["a"]


def test_what_was_away_in_between_counts_anew(clock):
    seen = Lasting[str](seconds=5)
    seen.look(["a"])
    clock(4)
    seen.look([])
    clock(1)
    assert seen.look(["a"]) == []
    clock(5)
    assert seen.look(["a"]) == ["a"]
