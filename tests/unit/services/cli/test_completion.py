"""`sluice completion`, with a real bash; zsh and fish get the scripts of the same library."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli import app

ASK = """
eval "$(sluice completion bash)"
complete -p sluice >&2
COMP_WORDS=(sluice {words}); COMP_CWORD={at}; _sluice_completion sluice; echo "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "at", "completed"),
    [("ru", 1, {"run", "rules", "runs"}), ("signals s", 2, {"send", "show"}), ("runs list --si", 3, {"--since"})],
)
def test_bash_completes_commands_and_options(tmp_path: Path, words: str, at: int, completed: set[str]) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "PREFECT_"))}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", ASK.format(words=words, at=at)],
        env={**kept, "PATH": path}, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert set(done.stdout.split()) == completed
    assert "_sluice_completion sluice" in done.stderr


def test_other_shells_get_their_scripts_and_the_rest_is_refused() -> None:
    for shell, said in (("zsh", "#compdef sluice"), ("fish", "complete --command sluice")):
        assert said in CliRunner().invoke(app, ["completion", shell]).stdout
    refused = CliRunner().invoke(app, ["completion", "csh"])
    assert refused.exit_code == 2
    assert "'bash'" in refused.stderr
