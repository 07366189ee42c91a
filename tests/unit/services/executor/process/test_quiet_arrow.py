"""pyarrow can be imported before a fork."""

from __future__ import annotations

import subprocess
import sys

import pytest

from config.settings import CHECKOUT

LOOK = """
import os
from services.executor.process.process_setup import quiet_arrow
quiet_arrow(os.environ)
import pyarrow
print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_pyarrow_starts_no_thread_when_it_is_imported() -> None:
    """Else its allocator has one, and every run must import pyarrow itself."""
    looked = subprocess.run([sys.executable, "-c", LOOK], cwd=CHECKOUT, capture_output=True, check=True, text=True)
    assert int(looked.stdout) == 1
