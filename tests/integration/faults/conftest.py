"""The seed of a fault injection, and how it is told."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable

import pytest

Say = Callable[[str], None]

SEED = os.environ.get("FAULTS_SEED")


@pytest.fixture
def seed() -> int:
    return int(SEED) if SEED else random.SystemRandom().randrange(2**31)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Prints past pytest's capture: the seed must be known whatever happens."""

    def speak(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{text}\n")
            sys.stdout.flush()

    return speak
