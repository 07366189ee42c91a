"""What a process can do about itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from services.common.process_tree import pauses_until_children_end

RESTS = """
import pyarrow
from services.common.process_tree import unmap_code

def code():
    sizes, mine = 0, False
    for line in open("/proc/self/smaps"):
        if "-" in line.split()[0]:
            mine = " r-xp " in line and "libarrow" in line
        elif mine and line.startswith("Rss:"):
            sizes += int(line.split()[1])
    return sizes

before = code()
unmap_code()
print(before, code(), pyarrow.array([1, 2]).to_pylist())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_a_process_that_rests_lets_go_of_the_code_it_has_mapped_and_can_still_run_it() -> None:
    told = subprocess.run(
        [sys.executable, "-c", RESTS], cwd=Path(__file__).parents[4], check=True, capture_output=True, text=True
    )
    before, after, *answer = told.stdout.split(maxsplit=2)
    assert int(before) > 1000
    assert int(after) == 0
    assert answer == ["[1, 2]\n"]


def test_a_pause_ends_with_a_child_also_one_that_has_ended_before() -> None:
    with pauses_until_children_end() as pause:
        for late in (False, True):
            child = subprocess.Popen([sys.executable, "-c", ""])
            if late:
                child.wait()
            pause(3600)
            child.wait()
