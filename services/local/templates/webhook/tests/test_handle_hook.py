"""Run with pytest, in the project's folder: the flow's work, in a Prefect of its own."""

import sys
from pathlib import Path

from prefect.logging import disable_run_logger

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "flows"))

from handle_hook import handle_hook


def test_the_names_of_what_was_sent_are_said() -> None:
    with disable_run_logger():
        assert handle_hook.fn({"repository": "acme", "branch": "main"}) == "received branch, repository"
