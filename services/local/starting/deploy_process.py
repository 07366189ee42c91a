"""`sluice deploy` as a process of `sluice up`."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from config.settings import CHECKOUT
from events.errors import ConfigError, TransientError
from services.local.embedded_servers import PYTHON_MODULE, Server
from services.local.start_template import StartTemplate

DEPLOY_SECONDS: Final = 120.0
"""How long the registration may take after Prefect responds: flow files are imported meanwhile."""

PREFECT_SECONDS: Final = 200
"""How long `sluice deploy` waits for Prefect: a little longer than the supervisor does."""


class DeployProcess:
    """`sluice deploy`, which reads the flows while the Prefect server starts; `finish` waits for its end."""

    def __init__(self, env: Mapping[str, str], *, log_file: Path, template: StartTemplate | None = None) -> None:
        self._log_file = log_file
        self._before = log_file.stat().st_size if log_file.exists() else 0
        command = [*PYTHON_MODULE, "services.cli", "deploy", "--wait", str(PREFECT_SECONDS)]
        self._server = Server("sluice deploy", command, log_file=log_file, env=env, cwd=CHECKOUT, template=template)

    def finish(self, *, say: Callable[[str], None]) -> None:
        """Return when everything is registered, and print its remarks.

        Prefect must answer by now. Raises `ConfigError` with the mistakes in the flows or the rules, and
        `TransientError` if it fails or does not end within `DEPLOY_SECONDS`.
        """
        try:
            code = self._server.process.wait(DEPLOY_SECONDS)
        except subprocess.TimeoutExpired:
            msg = (
                f"the deployments were not registered within {DEPLOY_SECONDS:.0f} s: does a flow file hang while it is "
            )
            raise TransientError(f"{msg}imported? `sluice deploy` shows which; {self._server.tail()}") from None
        finally:
            self.stop()
        said = self._log_file.read_bytes()[self._before :].decode(errors="replace").splitlines()
        for line in said:
            if line.startswith(("note: ", "warning: ")):
                say(f"  {line}")
        if code == 2:  # noqa: PLR2004 - the contract's exit code for a bad configuration
            raise ConfigError(*(line.removeprefix("error: ") for line in said if line.startswith("error: ")))
        if code:
            raise TransientError(f"the deployments could not be registered: {self._server.tail()}")

    def stop(self) -> None:
        """End it, if it has not ended."""
        self._server.stop()
