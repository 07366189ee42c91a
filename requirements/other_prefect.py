"""``other_prefect.py VERSION``: a `.venv-prefect-VERSION` that differs from this Python's in the version of Prefect.

``prefect-VERSION.txt``, locked with hashes, holds what differs. All else is taken from the environment that runs this,
so that it costs a few seconds, and so that nothing but Prefect makes a difference to what is tested.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


def install(version: str) -> None:
    """Make the environment anew beside `.venv`."""
    folder = HERE.parent / f".venv-prefect-{version}"
    venv.create(folder, clear=True, symlinks=True)
    python = folder / "bin" / "python"
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    # Behind the environment's own packages on the path, with what path files add to those of this Python.
    (packages / "others.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    lock = HERE / f"prefect-{version}.txt"
    locked = ("--ignore-installed", "--require-hashes", "--no-deps", "-r", lock)
    for command in (
        (*PIP, "--python", python, "install", "-qq", *locked),
        (python, "-m", "pip", "--disable-pip-version-check", "check", "-q"),
        (python, HERE / "launcher.py"),
    ):
        subprocess.run(command, check=True)  # noqa: S603 - our own


if __name__ == "__main__":
    install(sys.argv[1])
