"""`sluice doctor`: checks this machine, its settings and the servers, and says how to correct what is wrong."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import typer

from config.certificates import tls_files
from config.project import load_project
from config.settings import Settings, load_settings
from events.errors import ConfigError
from services.cli.output import say, show_json, show_rows
from services.cli.terminal.options import AsJson
from services.home.access import Access, find_access
from services.local.environment.version import own_version
from services.operations.doctor import machine, servers, variables
from services.operations.doctor.certificates import check_certificates
from services.operations.doctor.finding import Finding, Grade, fail, ok


def doctor(
    as_json: AsJson = False,
) -> None:
    """Check this machine, its settings and the servers; exit code 1 if something does not work.

    It works without an installation, and changes nothing.
    """
    found = list(_examined())
    rows = [asdict(finding) for finding in found]
    if as_json:
        show_json(rows)
    else:
        for row, finding in zip(rows, found, strict=True):
            row["found"] += f" — do: {finding.fix}" if finding.fix else ""
        show_rows(rows, ("grade", "check", "found"), as_json=False)
        failed, warned = (sum(one.grade is grade for one in found) for grade in (Grade.FAIL, Grade.WARN))
        say(f"{len(found)} checks: {failed} failed, {warned} warnings")
    raise typer.Exit(int(any(one.grade is Grade.FAIL for one in found)))


def _examined() -> Iterator[Finding]:
    """Return all findings; checks that need the settings or the home are left out where these cannot be read."""
    yield from machine.check_versions(own_version())
    yield from machine.check_open_files()
    try:
        settings = load_settings()
    except ConfigError as error:
        for problem in error.problems:
            yield fail("settings", problem, "correct it in the environment or in .env, or unset it")
        yield from machine.check_orphans()
        return
    folders: list[str] = []
    try:
        project = load_project(settings.config, home=settings.home)
        folders = project.watched_folders
        yield ok("project", f"{project.path}: {len(folders)} watched folders, {len(project.rules)} rules")
    except ConfigError as error:
        for problem in error.problems:
            yield fail("project", problem, "correct it; `sluice check` says more")
    yield from machine.check_inotify(folders)
    yield from machine.check_permissions(home=settings.home, project=settings.config, folders=folders)
    yield from machine.check_disks([settings.home, *map(Path, folders)])
    try:
        access = find_access(settings)
    except ConfigError as error:
        yield fail("home", str(error), "run the command as the owner of the home")
        return
    yield from variables.check_variables(
        os.environ,
        own_prefect=access.running.prefect_api_url if access.running else None,
        prefect_names=_names_of_prefect,
    )
    yield from check_certificates(tls_files(settings, os.environ))
    yield from asyncio.run(_servers(settings, access))
    yield from machine.check_orphans()


async def _servers(settings: Settings, access: Access) -> list[Finding]:
    found = [one async for one in servers.check_redis(access.redis_url, settings.redis)]
    url, auth = access.prefect_api_url, access.prefect_auth_string
    own = access.running is not None and url == access.running.prefect_api_url
    return [*found, *servers.check_prefect(url, auth=auth, home=settings.home, own=own)]


def _names_of_prefect() -> frozenset[str]:
    from services.prefect_api.compat import setting_names

    return setting_names()
