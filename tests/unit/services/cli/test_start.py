"""What a command imports: each of these packages takes longer than all that it does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SHOWN = """
import json, sys
from services.cli import main
sys.argv = ["sluice", *sys.argv[1:]]
try:
    main()
except SystemExit:
    print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})), file=sys.stderr)
"""
SLOW = {"fastapi", "httpx", "jinja2", "prefect", "prometheus_client", "rich", "rq", "structlog", "uvicorn", "wcmatch"}


@pytest.mark.parametrize(
    ("words", "needed"),
    [(["status", "--json"], set()), (["status"], {"rich"}), (["env"], set()), (["completion", "bash"], set())],
)
def test_a_command_imports_none_of_the_slow_packages_that_it_does_not_need(
    tmp_path: Path, checkout: Path, words: list[str], needed: set[str]
) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "PREFECT_"))}
    done = subprocess.run(
        [sys.executable, "-c", SHOWN, *words],
        cwd=checkout, env={**kept, "SLUICE_HOME": str(tmp_path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    imported = set(json.loads(done.stderr.splitlines()[-1]))
    assert imported & SLOW == needed


def test_a_status_that_is_watched_goes_on_until_ctrl_c_and_exits_as_the_last_one(
    tmp_path: Path, checkout: Path
) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "PREFECT_"))}
    command = [sys.executable, "-m", "services.cli", "status", "--watch", "--json"]
    env = {**kept, "SLUICE_HOME": str(tmp_path)}
    with subprocess.Popen(command, cwd=checkout, env=env, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        moments = [json.loads(watching.stdout.readline())["at"] for _ in range(2)]
        watching.send_signal(signal.SIGINT)
        assert watching.wait(60) == 1
    assert moments == sorted(set(moments))
