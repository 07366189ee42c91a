"""The addresses and passwords of an installation: of the servers in the settings, or of this home's ``sluice up``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from config.settings import Settings
from events.errors import ConfigError
from services.home.home import Home, RunningInstallation


@dataclass(frozen=True, slots=True)
class Access:
    """Addresses with their passwords; None if neither the settings nor the home have one."""

    redis_url: str | None = field(repr=False)
    """With its password, from whichever setting it comes."""
    prefect_api_url: str | None
    prefect_auth_string: str | None = field(repr=False)
    api_url: str | None
    api_token: str | None = field(repr=False)
    running: RunningInstallation | None

    def as_environment(self) -> dict[str, str | None]:
        """The environment variables that clients read."""
        return {
            "PREFECT_API_URL": self.prefect_api_url,
            "PREFECT_API_AUTH_STRING": self.prefect_auth_string,
            "SLUICE_REDIS_URL": self.redis_url,
            "SLUICE_API_URL": self.api_url,
            "SLUICE_API_TOKEN": self.api_token,
        }

    def for_prefect(self) -> Mapping[str, str]:
        """The environment variables that Prefect's client reads when it is first imported."""
        found = {"PREFECT_API_URL": self.prefect_api_url, "PREFECT_API_AUTH_STRING": self.prefect_auth_string}
        return {name: value for name, value in found.items() if value}


def find_access(settings: Settings) -> Access:
    """Raises `ConfigError` for a home of another user.

    A password of the home goes to the server of the home only: a server that the environment names gets what the
    environment holds for it, unless both are the same.
    """
    running = Home(settings.home).running()
    prefect = str(settings.prefect_api_url).rstrip("/") if settings.prefect_api_url else None
    auth = os.environ.get("PREFECT_API_AUTH_STRING") or None
    if running is not None and prefect in {None, running.prefect_api_url}:
        prefect, auth = running.prefect_api_url, running.prefect_auth_string
    redis_url = settings.redis_url_with_password
    if redis_url is None and running is not None:
        redis_url = running.redis_url
    return Access(
        redis_url=redis_url,
        prefect_api_url=prefect,
        prefect_auth_string=auth,
        api_url=running.api_url if running else None,
        api_token=settings.api.token or (running.api_token if running else None),
        running=running,
    )


def required_token(settings: Settings) -> str | None:
    """Return the token that the API requires; None if it is open. Raises `ConfigError` if a setting must provide it."""
    if settings.api.token:
        return settings.api.token
    if settings.open:
        return None
    if settings.env != "development":
        raise ConfigError(
            f"SLUICE_API__TOKEN is not set, and outside development (SLUICE_ENV is {settings.env}) the API wants one:"
            " set the same on every instance, for example to what `openssl rand -hex 24` prints"
        )
    return Home(settings.home).credentials().api_token
