"""What `sluice up` starts: ports, addresses and passwords of the servers, and the environment of the roles."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from config.settings import RedisSettings, Settings
from services.home.home import Credentials, RunningInstallation
from services.local.embedded_servers import claim_port, prefect_url, valkey_url


@dataclass(frozen=True, slots=True)
class ClaimedPorts:
    """The ports on which this installation listens; 0 for a server that the settings name."""

    api: int
    redis: int
    prefect: int


@dataclass(frozen=True, slots=True)
class PlannedInstallation:
    """An installation before its start."""

    ports: ClaimedPorts
    running: RunningInstallation
    redis: RedisSettings = field(repr=False)
    """The settings of Redis with the password that the embedded server requires."""
    environment: Mapping[str, str] = field(repr=False)
    """That of the roles and of all clients of this installation."""


def claim_ports(settings: Settings) -> ClaimedPorts:
    """Return the ports in the settings, or free ones. Raises `ConfigError` for one that is taken."""
    ports = settings.ports
    return ClaimedPorts(
        api=claim_port(ports.api, "SLUICE_PORTS__API"),
        redis=0 if settings.redis_url else claim_port(ports.redis, "SLUICE_PORTS__REDIS"),
        prefect=0 if settings.prefect_api_url else claim_port(ports.prefect, "SLUICE_PORTS__PREFECT"),
    )


def plan_installation(settings: Settings, credentials: Credentials, ports: ClaimedPorts) -> PlannedInstallation:
    """Return what is to be started; ``credentials`` are those of the home, which an open installation does not use."""
    generated = None if settings.open else credentials.redis_password
    secured = settings.redis.model_copy(update={"password": settings.redis.password or generated})
    auth = os.environ.get("PREFECT_API_AUTH_STRING") or None
    if not settings.prefect_api_url:
        auth = None if settings.open else credentials.prefect_auth_string
    running = RunningInstallation(
        pid=os.getpid(),
        redis_url=settings.redis_url_with_password or valkey_url(ports.redis, secured),
        prefect_api_url=str(settings.prefect_api_url) if settings.prefect_api_url else prefect_url(ports.prefect),
        api_url=f"{settings.api.scheme}://{settings.api.host}:{ports.api}",
        prefect_auth_string=auth,
        api_token=settings.api.token or (None if settings.open else credentials.api_token),
        ui_login=settings.prefect_api_url is None and auth is not None,
        own_redis=settings.redis_url is None,
        own_prefect=settings.prefect_api_url is None,
    )
    return PlannedInstallation(ports, running, secured, _environment(settings, running, ports.api))


def _environment(settings: Settings, running: RunningInstallation, api_port: int) -> dict[str, str]:
    env = {
        **os.environ,
        "SLUICE_HOME": str(settings.home),
        "SLUICE_CONFIG": str(settings.config),
        # Without the operator's password: each role has its own where the settings name a file of them.
        "SLUICE_REDIS_URL": settings.redis_url or running.redis_url,
        "SLUICE_PORTS__API": str(api_port),
        "PREFECT_API_URL": running.prefect_api_url,
    }
    env.pop("PREFECT_API_AUTH_STRING", None)
    env.pop("SLUICE_READY_FILE", None)  # of one role
    if running.prefect_auth_string:
        env["PREFECT_API_AUTH_STRING"] = running.prefect_auth_string
    if not settings.redis_url:
        env["SLUICE_REDIS__SHARED"] = "false"
    if not settings.prefect_api_url:
        env["PREFECT_HOME"] = str(settings.home / "prefect")
    if running.api_token and settings.env != "development":
        env["SLUICE_API__TOKEN"] = running.api_token
    return env
