"""`executor.python`: the environment of the project in which its flows are imported and run.

Processes that read or run flows use that environment's interpreter. Libraries that Sluice needs and the environment
lacks come from Sluice's own environment, which is last on the import path; so both must have the same version of
Python.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement

from config.settings import CHECKOUT, Settings
from events.errors import ConfigError
from services import LIBRARIES
from services.local.environment.version import DISTRIBUTION, own_version

_ASK_SECONDS: Final = 20.0
_ASK: Final = """
import json, sys
from importlib.metadata import distributions
found = {str(one.name).lower().replace("_", "-"): one.version for one in distributions()}
print(json.dumps({"python": sys.version_info[:2], "versions": {name: found.get(name) for name in sys.argv[1:]}}))
"""


def enter_flows_environment(settings: Settings) -> None:
    """Replace this program by the same one in the environment that the settings name, unless it runs there already.

    Raises `ConfigError` with every reason why the environment cannot be used.
    """
    python = _interpreter(settings)
    if python is None or os.path.abspath(sys.executable) == str(python):  # noqa: PTH100 - links stay
        return
    _check(python)
    environment = {
        **os.environ,
        LIBRARIES: os.pathsep.join(_own_libraries()),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")])),
    }
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # -P: the working directory may be a project with packages of Sluice's names.
    os.execve(python, [str(python), "-P", "-m", "services.cli", *sys.argv[1:]], environment)  # noqa: S606 - it is named


def _interpreter(settings: Settings) -> Path | None:
    """The interpreter, as it is called in its environment; a relative path is relative to the project file."""
    named = settings.executor.python
    if named is None:
        return None
    path = Path(os.path.abspath(settings.config.parent / named.expanduser()))  # noqa: PTH100 - links stay
    return path / "bin" / "python" if path.is_dir() else path


def _check(python: Path) -> None:
    """Raise `ConfigError` if the interpreter cannot run flows: no Python, another version, or unfit libraries."""
    setting = "setting SLUICE_EXECUTOR__PYTHON"
    needed = _requirements()
    try:
        answer = subprocess.run(  # noqa: S603 - it is named in the settings
            [str(python), "-c", _ASK, DISTRIBUTION, *sorted(needed)],
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            capture_output=True,
            check=True,
            timeout=_ASK_SECONDS,
        )
        found: dict[str, Any] = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        why = getattr(error, "strerror", None) or f"it does not answer as Python does ({type(error).__name__})"
        raise ConfigError(
            f"{setting}: {python} is no Python that can be used: {why} — name the folder of a virtual environment, or "
            "its interpreter"
        ) from error
    if tuple(found["python"]) != sys.version_info[:2]:
        ours = ".".join(map(str, sys.version_info[:2]))
        theirs = ".".join(map(str, found["python"]))
        raise ConfigError(
            f"{setting}: {python} is Python {theirs}, and Sluice runs on {ours}: make one of the two environments with "
            "the other's Python, or install Sluice into the project's own"
        )
    versions = found["versions"]
    problems = [
        f"{setting}: {python} has {name} {versions[name]}, and Sluice needs {one.specifier}: install such a one there, "
        "or none, and Sluice's own is taken"
        for name, one in needed.items()
        if versions[name] is not None and not one.specifier.contains(versions[name], prereleases=True)
    ]
    if versions[DISTRIBUTION] not in {None, own_version()}:
        problems.append(
            f"{setting}: {python} has {DISTRIBUTION} {versions[DISTRIBUTION]}, and this is {own_version()}: "
            "install the same there, or none"
        )
    if problems:
        raise ConfigError(*problems)


def _requirements() -> dict[str, Requirement]:
    """What the service needs, by name."""
    about = CHECKOUT / "pyproject.toml"
    if about.is_file():
        extras = tomllib.loads(about.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
        lines = extras["service"]
    else:
        try:
            lines = requires(DISTRIBUTION) or []
        except PackageNotFoundError:
            lines = []
    found = [Requirement(line) for line in lines]
    return {
        one.name.lower().replace("_", "-"): one
        for one in found
        if one.name != DISTRIBUTION and (one.marker is None or one.marker.evaluate({"extra": "service"}))
    }


def _own_libraries() -> list[str]:
    """Where this interpreter finds libraries, without the standard one."""
    standard = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    inside = tuple(f"{folder}{os.sep}lib-dynload" for folder in standard)
    return [
        entry
        for entry in sys.path
        if entry
        and entry not in standard
        and not entry.endswith(".zip")
        and not entry.startswith(inside)
        and Path(entry).resolve() != CHECKOUT
    ]
