"""The text that `sluice up` prints once everything is ready: addresses, and what to try."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from config.location import locate_project
from config.project import Project
from config.settings import DEFAULT_PROJECT, Settings
from config.sources import EVENTS, default_channel
from events.redact import redacted
from services.home.home import Home, RunningInstallation

_ORDER = (
    '{"specversion":"1.0","id":"order-1042","source":"shop","type":"order.created",'
    '"data":{"order_id":1042,"amount":129.5}}'
)


def welcome(running: RunningInstallation, settings: Settings, project: Project) -> Iterator[str]:
    """Yield the lines."""
    inbox = next((watch.path for watch in project.sources.files.values()), None)
    yield ""
    yield "Sluice is ready."
    yield f"  Prefect UI  {Home(settings.home).ui_link(running)}"
    if running.ui_login:
        yield "              (logs a browser in, once, within an hour; `sluice ui` prints another)"
    yield f"  Inbox       {inbox or '(no watched folder in the configuration)'}"
    yield f"  Redis       {redacted(running.redis_url)}"
    if project.name and settings.redis_url and settings.redis.shared:
        yield f"              (channel {default_channel(EVENTS, project.name)}, stream {EVENTS})"
    yield f"  HTTP        {running.api_url}/events"
    if project.endpoints:
        yield f"  Endpoints   {running.api_url}/endpoints"
    sluice = _command(settings)
    yield f'  Shell       eval "$({sluice} env)"   (then prefect, redis-cli, rq and curl reach them)'
    yield ""
    if project.path.resolve() == DEFAULT_PROJECT:
        yield "Try:"
        weather = shlex.quote(f"{inbox}/weather.csv")
        yield f"  1. drop a file:    printf 'city,degrees\\nOslo,4.5\\nRome,19\\n' > {weather}"
        yield f"  2. send an order:  echo {shlex.quote(_ORDER)} | {sluice} events publish -"
        yield f"  3. approve it:     {sluice} signals send --key order-1042 --input '{{\"approved\": true}}'"
    else:
        yield f"Project {project.name or 'without a name'}: {project.path}"
    yield ""
    yield f"Watch: {sluice} runs list · {sluice} events list · {sluice} status.  Stop: Ctrl-C."


def _command(settings: Settings) -> str:
    """Return the command, as called in this working directory, that finds this home."""
    named = ("SLUICE_HOME", "SLUICE_CONFIG")
    found = locate_project(
        {name: value for name, value in os.environ.items() if name not in named}, Path.cwd(), default=DEFAULT_PROJECT
    )
    return "sluice" if found.home == settings.home else f"SLUICE_HOME={shlex.quote(str(settings.home))} sluice"
