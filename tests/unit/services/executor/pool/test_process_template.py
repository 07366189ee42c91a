"""What the process template has imported, so that no slot and no run needs to import it again."""

from __future__ import annotations

import json
import subprocess
import sys

from config.settings import CHECKOUT

LOADED = """
import json, sys
from services.executor.pool.process_template import import_all
import_all()
before = set(sys.modules)
from services.prefect_api import compat
from prefect.flow_engine import run_flow
from prefect.client.orchestration import SyncPrefectClient
import services.executor.executor, services.executor.pool.slot_worker, services.executor.pool.fork_server
import services.executor.process.flow_run_process, services.executor.finalizing.finalizer
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_what_slots_and_runs_need_is_imported_before_they_are_forked() -> None:
    said = subprocess.run(
        [sys.executable, "-c", LOADED], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, check=True, timeout=120
    )
    assert json.loads(said.stdout) == []
