"""A role as a fork of the start template: it begins with the settings and the project that the template has read.

If each role read them itself, it would write to memory pages that it shares with the template, and so get about ten
megabytes of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from config.logs import configure_logging, show_uncaught
from config.project import Project, load_project, version_of
from config.settings import RoleName, Settings, load_settings
from events.errors import ConfigError, SluiceError
from services.app import run_role
from services.cli.commands import tell_error

OF_THE_PROJECT: Final = frozenset({"api", "executor"})
"""The roles that run the project's own code."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    env: Mapping[str, str]
    settings: Settings
    project: Project
    marks: tuple[tuple[object, ...], ...]

    def holds(self) -> bool:
        """Whether settings and project are unchanged: same environment, same files."""
        return self.env == dict(os.environ) and self.marks == tuple(_marks(self.project))


_prepared: list[_Prepared] = []


def prepare() -> None:
    """Read settings and project in the template, which has the environment of the roles, unless they are unchanged.

    If they cannot be read nothing is prepared: the role reads them itself and reports the error.
    """
    if _prepared and _prepared[0].holds():
        return
    _prepared.clear()
    try:
        settings = load_settings()
        project = load_project(settings.config, home=settings.home)
        marks = tuple(_marks(project))
        # If the digest differs, the file was changed while it was read.
        unchanged = version_of(project.path.read_bytes()) == project.version
        if unchanged and settings.redis.users_file is None:  # with it, each role has settings of its own
            _prepared.append(_Prepared(dict(os.environ), settings, project, marks))
    except (OSError, SluiceError):
        return


def become_role(role: RoleName) -> int:
    """Run the role in the fork, as ``sluice run ROLE`` does; return the exit code."""
    show_uncaught()
    try:
        found = _prepared[0] if _prepared and _prepared[0].holds() else None
        settings = found.settings if found is not None else load_settings(redis_user=role)
        if role in OF_THE_PROJECT and settings.executor.python is not None:
            from services.local.environment.flows_environment import enter_flows_environment

            enter_flows_environment(settings)
        configure_logging(settings.log, role=role)
        run_role(role, settings, project=found.project if found is not None else None)
    except SluiceError as error:
        tell_error(error, as_json=False)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        return 130
    return 0


def _marks(project: Project) -> Iterator[tuple[object, ...]]:
    """Return what changes when a file changes from which the project was read."""
    for source in map(Path, project.contract_sources):
        for path in (source, *sorted(source.iterdir())) if source.is_dir() else (source,):
            try:
                found = path.stat()
            except OSError:
                yield (str(path),)
            else:
                yield (str(path), found.st_mtime_ns, found.st_size, found.st_ino)
