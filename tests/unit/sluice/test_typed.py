"""A program that imports `sluice`, as somebody else's type checker sees it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
from typing import assert_type

from pydantic import BaseModel

from sluice import SignalRejected, publish, send_signal, wait_for_signal, wait_for_signal_async


class Approval(BaseModel):
    approved: bool


def waits() -> None:
    assert_type(wait_for_signal("order-1", input=Approval), Approval)
    assert_type(wait_for_signal("order-1", input=Approval, timeout=60, default=None), Approval | None)
    wait_for_signal("order-1", input=3)  # type: ignore[call-overload]
    wait_for_signal("order-1", suspended=True)  # type: ignore[call-overload]


async def waits_too() -> None:
    assert_type(await wait_for_signal_async("order-1", input=Approval), Approval)
    assert_type(await wait_for_signal_async("order-1", input=Approval, timeout=60, default=0), Approval | int)


def sends() -> None:
    assert_type(publish("order.created", {"id": 1}, source="shop"), str)
    assert_type(send_signal(key="order-1", input={"approved": True}), str)
    send_signal(key="order-1", action="approve")  # type: ignore[arg-type]
    publish(1)  # type: ignore[arg-type]
    assert_type(SignalRejected(by="ann", reason=None).by, str | None)
"""

# The types of these do not matter here, and reading them takes most of the time.
CONFIGURATION = """
[mypy]
strict = true
[mypy-prefect.*,httpx.*,redis.*]
follow_imports = skip
"""


@pytest.mark.slow
def test_mypy_knows_what_the_functions_take_and_return(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "mypy.ini").write_text(CONFIGURATION)
    environment = {name: value for name, value in os.environ.items() if name != "MYPYPATH"}
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache"), "program.py"]
    checked = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
