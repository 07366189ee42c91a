"""What `sluice new flow` writes passes its own test, on a Prefect server of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from services.local.new_files import new_flow


def test_the_tests_that_are_written_pass(tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    project = tmp_path / "sluice.yaml"
    project.write_text("sources:\n  files:\n    inbox: {path: inbox}\nrules: []\n")
    for name, waits, file in (("plain", False, False), ("waits", True, False), ("of-files", False, True)):
        new_flow(project, name, home=tmp_path / ".sluice", area="area", waits=waits, file=file)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "shared.py").write_text("WORD = 'shared'\n")
    flow = tmp_path / "flows" / "area" / "plain.py"
    flow.write_text(flow.read_text() + "\nfrom tasks.shared import WORD\n\nassert WORD\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "SLUICE_"))}
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=tmp_path,
        env={**environment, "PREFECT_HOME": str(tmp_path / "prefect"), "DO_NOT_TRACK": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert "3 passed" in answer.stdout, answer.stdout + answer.stderr
