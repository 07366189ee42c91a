"""Nothing answers itself, nothing is lost while it waits: whatever happens to runs that wait, in any order.

``WAITS_SEED`` chooses another seed, ``WAITS_SECONDS`` how long the soak goes on.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.integration.waits.installation import Installation, installation
from tests.integration.waits.machine import STEPS, WaitsInAnyOrder

SEED = int(os.environ.get("WAITS_SEED", "13"))
SOAK_SECONDS = float(os.environ.get("WAITS_SECONDS", "600"))
SLOTS = 2


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, prefect_url: str, valkey_url: str) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("waits")
    with installation(folder, prefect_url=prefect_url, valkey_url=valkey_url, slots=SLOTS) as found:
        yield found


def play(installed: Installation, folder: Path, number: int, *, examples: int, steps: int) -> None:
    """Without shrinking: the same steps do not take the same course again."""

    def machine() -> WaitsInAnyOrder:
        return WaitsInAnyOrder(installed, folder)

    run_state_machine_as_test(
        seed(number)(machine),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            deadline=None,
            database=None,
            verbosity=Verbosity.normal,
            print_blob=False,
            report_multiple_bugs=False,
        ),
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_answer_is_received_once_and_none_is_made_up(installed: Installation, tmp_path: Path) -> None:
    play(installed, tmp_path, SEED, examples=2, steps=40)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_every_answer_is_received_once_and_none_is_made_up_for_long(
    installed: Installation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = SEED if "WAITS_SEED" in os.environ else random.SystemRandom().randrange(2**31)
    ends = time.monotonic() + SOAK_SECONDS
    for number in itertools.count(first):
        if time.monotonic() > ends:
            break
        play(installed, tmp_path, number, examples=4, steps=40)
        with capsys.disabled():
            sys.stdout.write(f"\nseed {number}: {STEPS.total()} steps so far {dict(STEPS)}\n")
