"""Finds the project of a command: its file, which also gives its folder, and the home with its state."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dotenv import dotenv_values

PROJECT_FILE: Final = "sluice.yaml"
HOME_FOLDER: Final = ".sluice"
ENV_FILE: Final = ".env"


@dataclass(frozen=True, slots=True)
class ProjectLocation:
    """The project file, which need not exist, and the default home."""

    file: Path
    home: Path


def locate_project(environ: Mapping[str, str], folder: Path, *, default: Path) -> ProjectLocation:
    """Find the project of a command that runs in ``folder``.

    The first of these: the file that ``SLUICE_CONFIG`` names, the ``sluice.yaml`` beside ``SLUICE_HOME``, the one in
    ``folder`` or the nearest folder above it, ``default`` if that file is there, and else a ``sluice.yaml`` in
    ``folder`` that is still to be made. The state lies in ``.sluice`` beside the file; that of ``default`` lies in
    ``folder``.
    """
    named = environ.get("SLUICE_CONFIG")
    if named:
        return _beside(Path(named).expanduser().resolve(), folder, default)
    home = environ.get("SLUICE_HOME")
    near = Path(home).expanduser().resolve().parent / PROJECT_FILE if home else None
    if near is not None and near.is_file():
        return _beside(near, folder, default)
    here = folder.resolve()
    found = next((one / PROJECT_FILE for one in (here, *here.parents) if (one / PROJECT_FILE).is_file()), None)
    if found is None and default.is_file():
        found = default
    return _beside(found or here / PROJECT_FILE, folder, default)


def read_env_file(environ: MutableMapping[str, str], folder: Path, *, default: Path) -> None:
    """Add to ``environ`` what the files ``.env.ENVIRONMENT`` and ``.env`` beside the project file set and it does not.

    The former wins over the latter; the environment is ``SLUICE_ENV``, which may stand in ``.env`` too. ``default`` has
    no such files.
    """
    place = locate_project(environ, folder, default=default)
    if place.file == default or not place.file.is_file():
        return
    everywhere = dotenv_values(place.file.parent / ENV_FILE, interpolate=False)
    name = environ.get("SLUICE_ENV") or everywhere.get("SLUICE_ENV") or "development"
    here = dotenv_values(place.file.parent / f"{ENV_FILE}.{name}", interpolate=False)
    for variable, value in {**everywhere, **here}.items():
        if value is not None:
            environ.setdefault(variable, value)


def _beside(file: Path, folder: Path, default: Path) -> ProjectLocation:
    return ProjectLocation(file, (folder.resolve() if file == default else file.parent) / HOME_FOLDER)
