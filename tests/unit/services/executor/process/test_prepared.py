"""What a run process sets for the client in its flow, unless the environment says otherwise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

READS = """
import gc, os
from prefect.settings import PREFECT_CLIENT_RETRY_EXTRA_CODES
from services.executor.process.flow_run_process import Prepared
prepared = Prepared(dict(os.environ))
gc.collect()
print(sorted(PREFECT_CLIENT_RETRY_EXTRA_CODES.value()))
"""


@pytest.mark.parametrize(("given", "repeated"), [({}, "[500]"), ({"PREFECT_CLIENT_RETRY_EXTRA_CODES": "504"}, "[504]")])
def test_a_request_is_repeated_that_prefect_answers_with_a_failure_of_its_own(
    checkout: Path, given: dict[str, str], repeated: str
) -> None:
    """Its database is away, say."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_CLIENT_RETRY")}
    command = [sys.executable, "-c", READS]
    told = subprocess.run(
        command, cwd=checkout, env=env | given, capture_output=True, text=True, check=True, timeout=120
    )
    assert told.stdout.strip() == repeated
