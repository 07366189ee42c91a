"""`sluice service install`: the unit with which systemd runs `sluice up` for a project."""

from __future__ import annotations

import os
import pwd
import re
import sys
from pathlib import Path
from typing import Final

from config.project import load_project, project_root
from config.settings import CHECKOUT, Settings
from events.errors import ConfigError

SYSTEM_FOLDER: Final = Path("/etc/systemd/system")
FIRST_LINE: Final = "# Written by `sluice service install`, which writes it anew; your changes go into an override:"

STOP_SECONDS: Final = 30.0
"""How long a stop may take, beside the time that runs have to finish."""

_UNIT: Final = """\
{first_line}
# systemctl{user_option} edit {name}

[Unit]
Description=Sluice, project {project}
Wants=network-online.target
After=network-online.target

[Service]
# `sluice up` says when everything is ready: units that start after this one wait for it.
Type=notify
NotifyAccess=main
ExecStart={command}
WorkingDirectory={folder}
# Which project, and where its state lies. Other settings and passwords go into the file .env beside the project file.
Environment={config}
Environment={home}
{account}
# A first start may migrate a database.
TimeoutStartSec=10min
# `sluice up` stops its processes in order, sources first, within ten seconds: only it is asked to. Its runs may finish
# for as long as executor.stop_seconds says: with another value of that, install this unit anew.
KillMode=mixed
TimeoutStopSec={stop_seconds}s
# It gives a sign of life every 20 seconds; without one for a minute it is killed and started again.
WatchdogSec=60s
Restart=on-failure
RestartSec=5s
# Exit code 2 is a configuration that cannot be used: to start again does not mend it.
RestartPreventExitStatus=2

[Install]
WantedBy={target}
"""


def unit_name(settings: Settings) -> str:
    """``sluice-NAME.service``, by the project's name or else that of its folder. Raises `ConfigError`."""
    return f"sluice-{_project_name(settings)}.service"


def unit_folder(*, user: bool) -> Path:
    """Return systemd's folder for units of the machine's administrator, or of this user."""
    if not user:
        return SYSTEM_FOLDER
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"


def unit_text(settings: Settings, *, user: bool) -> str:
    """Return the unit. That of the machine runs as the owner of the project's folder. Raises `ConfigError`."""
    folder = project_root(settings.config)
    program = Path(sys.executable).parent / "sluice"
    words = [str(program), "up"] if program.exists() else [sys.executable, "-m", "services.cli", "up"]
    environment = [] if program.exists() else [f"Environment={_quoted(f'PYTHONPATH={CHECKOUT}')}"]
    account = [] if user else [f"User={_owner(folder)}"]
    return _UNIT.format(
        first_line=FIRST_LINE,
        user_option=" --user" if user else "",
        name=unit_name(settings),
        project=_project_name(settings),
        command=" ".join(_quoted(word).replace("$", "$$") for word in words),
        folder=str(folder).replace("%", "%%"),
        config=_quoted(f"SLUICE_CONFIG={settings.config}"),
        home=_quoted(f"SLUICE_HOME={settings.home}"),
        account="\n".join(environment + account),
        stop_seconds=round(STOP_SECONDS + settings.executor.stop_seconds),
        target="default.target" if user else "multi-user.target",
    )


def install_unit(settings: Settings, *, user: bool) -> Path:
    """Write the unit; raises `ConfigError` if it cannot be written, or another file has its name."""
    if sys.platform != "linux":
        raise ConfigError("systemd is a part of Linux: have the service manager of this system run `sluice up`")
    path = unit_folder(user=user) / unit_name(settings)
    text = unit_text(settings, user=user)
    try:
        if path.exists() and not path.read_text(encoding="utf-8").startswith(FIRST_LINE):
            raise ConfigError(f"{path} is there and was not written by `sluice service install`: move it away first")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        hint = "" if user else ": run it with sudo, or with --user for a service of your own"
        raise ConfigError(f"{path} cannot be written ({error.strerror}){hint}") from error
    return path


def _project_name(settings: Settings) -> str:
    name = load_project(settings.config, home=settings.home).name or project_root(settings.config).name.lower()
    return re.sub(r"[^a-z0-9-]+", "-", name).strip("-") or "project"


def _owner(folder: Path) -> str:
    uid = folder.stat().st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _quoted(word: str) -> str:
    """Quote one word of a command or an assignment for systemd."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
