"""What a waiting run and the resumer agree on."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from sluice.protocol import inputs_prefix, keys_of, keyset, pause_key, response_key, verdict_key, with_awaits

NAMES = st.text(min_size=1, max_size=200)
ALLOWED = re.compile(r"[A-Za-z0-9-]+")


@given(NAMES, st.integers(1, 50))
def test_every_name_gives_keys_that_prefect_takes(name: str, occurrence: int) -> None:
    pause = pause_key(name, occurrence)
    assert all(ALLOWED.fullmatch(key) for key in (pause, response_key(pause), verdict_key(pause)))


@given(NAMES, NAMES, st.integers(1, 20), st.integers(1, 20))
def test_no_waits_keys_begin_with_anothers_prefix(one: str, other: str, first: int, second: int) -> None:
    if (one, first) != (other, second):
        assert not response_key(pause_key(other, second)).startswith(inputs_prefix(pause_key(one, first)))


def test_a_plain_name_stays_readable() -> None:
    assert pause_key("order-1042", 2) == "sluice-wait-2-order-1042"


@given(st.lists(NAMES, unique=True))
def test_the_keys_come_back_out_of_the_keyset(keys: list[str]) -> None:
    assert keys_of(keyset("p", keys=keys)) == tuple(keys)


def test_tags_of_an_earlier_wait_are_replaced_and_the_runs_own_are_kept() -> None:
    assert with_awaits(["mine", "awaits:old"], ["a", "b"]) == ["mine", "awaits:a", "awaits:b"]
    assert with_awaits(["mine", "awaits:old"], []) == ["mine"]


def test_the_library_is_imported_without_prefect_redis_or_the_application(checkout: Path) -> None:
    code = """
import sys, sluice

def heavy():
    return {"prefect", "redis", "rq", "services", "events", "config", "flows"} & set(sys.modules)

assert not heavy(), heavy()
sluice.send_signal
assert not heavy(), heavy()
sluice.wait_for_signal
assert not heavy() - {"prefect", "redis"}, heavy()
"""
    subprocess.run([sys.executable, "-c", code], cwd=checkout, check=True)
