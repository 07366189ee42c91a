"""Makes the folder of a new project from a template; the project passes `sluice check` unchanged."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Final

from config.location import PROJECT_FILE
from events.errors import ConfigError

_TEMPLATES: Final = Path(__file__).resolve().parent / "templates"
_NAME: Final = "PROJECT_NAME"
_FOLDERS: Final = ("flows", "tests", "inbox")
_DOTTED: Final = {"gitignore": ".gitignore", "env.example": ".env.example"}


class Template(StrEnum):
    """What a new project begins with."""

    FILES = "files"
    APPROVAL = "approval"
    WEBHOOK = "webhook"
    EMPTY = "empty"


def make_project(folder: Path, template: Template) -> list[Path]:
    """Write the project into ``folder``, which is created if it is missing; return its new files, in order.

    Existing files stay as they are, and the others are made beside them. Raises `ConfigError` if the folder has a
    project, or cannot be written.
    """
    if (folder / PROJECT_FILE).exists():
        fix = "`sluice up` runs it; a new project needs a folder of its own"
        raise ConfigError(f"{folder / PROJECT_FILE} is there already — {fix}")
    written = []
    try:
        for name in _FOLDERS:
            (folder / name).mkdir(parents=True, exist_ok=True)
        for inside, text in _files(template, _project_name(folder)):
            target = folder / inside
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text, encoding="utf-8")
                written.append(target)
        for name in _FOLDERS:
            if not any((folder / name).iterdir()):
                (folder / name / ".gitkeep").touch()  # else a clone of the project has no such folder
    except OSError as error:
        raise ConfigError(f"{folder}: no project can be made there: {error.strerror}") from error
    return written


def _files(template: Template, name: str) -> Iterator[tuple[Path, str]]:
    for part in ("common", str(template)):
        for path in sorted((_TEMPLATES / part).rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                inside = path.relative_to(_TEMPLATES / part)
                text = path.read_text(encoding="utf-8").replace(_NAME, name)
                yield inside.with_name(_DOTTED.get(inside.name, inside.name)), text


def _project_name(folder: Path) -> str:
    """A name for the project, after its folder: lower-case letters, digits and ``-``."""
    return re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")[:40].strip("-") or "project"
