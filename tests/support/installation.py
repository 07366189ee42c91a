"""The demo's installation, whose commands need not import Prefect and Sluice again."""

from __future__ import annotations

import subprocess

from demo import installation
from tests.support.warm import run_module


class Installation(installation.Installation):
    """Commands are forks of the warm interpreter; `sluice up` itself is a process of its own, as anywhere."""

    def sluice(
        self, *arguments: str, check: bool = True, within_seconds: float = installation.STEP_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        done = run_module("services.cli", *arguments, env=self.env, timeout=within_seconds)
        if check:
            done.check_returncode()
        return done
