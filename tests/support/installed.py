"""The built wheel in an environment of its own, and the `sluice` command there."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def build_wheel(folder: Path) -> Path:
    """Build the distribution's wheel in ``folder``."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=CHECKOUT,
        capture_output=True,
        check=True,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the wheel, and with what the tests' own has beside it, if it has the dependencies."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, wheel: Path, *, dependencies: bool) -> Environment:
        """Install the wheel, offline: its dependencies are those of the environment that runs the tests."""
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        made = cls(folder)
        if dependencies:
            (made.site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "--python", str(made.python), "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "-q", "--no-deps", "--no-index", str(wheel)], check=True)
        return made

    @property
    def python(self) -> Path:
        """The interpreter."""
        return self.folder / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        """Where the wheel lies."""
        (found,) = self.folder.glob("lib/python*/site-packages")
        return found

    def command(self, *words: str) -> list[str]:
        """The words of a call of `sluice`."""
        return [str(self.folder / "bin" / "sluice"), *words]

    def sluice(
        self, *words: str, cwd: Path, env: Mapping[str, str] | None = None, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run `sluice` to its end, with nothing of this process's settings."""
        return subprocess.run(
            self.command(*words),
            cwd=cwd,
            env=plain_environment(env),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def plain_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of this process without settings of Sluice and Prefect, and ``more``."""
    names = ("SLUICE_", "PREFECT_", "PYTHON", "COV_")
    return {**{name: value for name, value in os.environ.items() if not name.startswith(names)}, **(more or {})}
