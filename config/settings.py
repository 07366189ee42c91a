"""Settings of the installation, from the environment (``SLUICE_*``) over the environment's file over the defaults."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import (
    AfterValidator,
    AnyHttpUrl,
    BeforeValidator,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from config.api import ApiSettings
from config.disks import DiskSettings
from config.health import CanarySettings, HealthSettings
from config.location import locate_project
from config.redis_users import OPERATOR, USER_PREFIX, password_of
from config.runs import DispatcherSettings, ExecutorSettings
from config.settings_part import Positive, SettingsPart
from config.variables import (
    PREFIX,
    is_loopback,
    prefect_address,
    redis_address,
    url_with_password,
    variable_problems,
    web_address,
)
from config.yaml_file import read_yaml
from events.errors import ConfigError
from events.redact import redacted
from events.untrusted_json import Limits

CHECKOUT: Final = Path(__file__).resolve().parent.parent
"""Where the application's own packages lie: the checkout, or a folder of the installed distribution."""
DEFAULT_PROJECT: Final = CHECKOUT / "config" / "sluice.yaml"
"""The project that is used where no other is found; an installed distribution has none."""

Port = Annotated[int, Field(ge=0, le=65535)]


RoleName = Literal["listeners", "router", "resumer", "executor", "api"]
ROLES: Final[tuple[RoleName, ...]] = get_args(RoleName)
"""The roles; each may run many times."""


class Ports(SettingsPart):
    """Where the servers of ``sluice up`` listen, on loopback; 0 picks a free port."""

    prefect: Port = 4200
    redis: Port = 6390
    api: Port = 4280


class LimitSettings(SettingsPart):
    """What one message from outside may weigh."""

    max_event_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 1024 * 1024
    max_depth: Annotated[int, Field(ge=4, le=200)] = 64

    def as_limits(self) -> Limits:
        """The same as the domain's value."""
        return Limits(max_bytes=self.max_event_bytes, max_depth=self.max_depth)


class RedisSettings(SettingsPart):
    """How to reach Redis (or Valkey), and how the embedded one keeps what it holds."""

    fsync: Literal["everysec", "always"] = "everysec"
    """Embedded server: ``always`` survives a power cut without loss, ``everysec`` loses up to a second of it."""
    max_memory: str = "0"
    """Embedded server: Valkey's ``maxmemory`` (for example ``512mb``); 0 is without limit. Nothing is ever evicted."""
    username: str | None = None
    password: str | None = Field(default=None, repr=False)
    """For a server whose URL does not carry them. It wins over the URL's; the embedded server is started with it."""
    users_file: Path | None = None
    """The ``passwords.json`` of `sluice acl`: each role is its own user, commands are ``sluice-operator``."""
    ca_file: Path | None = None
    """Certificate authority for ``rediss://``; without it the system's are trusted."""
    certificate_file: Path | None = None
    key_file: Path | None = None
    """The client's own certificate, for a server that asks for one."""
    sentinels: tuple[Annotated[str, StringConstraints(pattern=r"^.+:[0-9]{1,5}$")], ...] = ()
    """``host:port`` of each Sentinel; the URL's host is then the name of the monitored primary."""
    sentinel_password: str | None = Field(default=None, repr=False)
    shared: bool = True
    """Whether other projects use this server, so that channels carry the project's name; not on ``sluice up``'s."""
    replicas_to_wait_for: Annotated[int, Field(ge=0, le=100)] = 0
    """Replicas that must hold an event or a signal, in half of ``command_timeout_seconds``, before it is accepted."""
    connect_timeout_seconds: Positive = 5.0
    command_timeout_seconds: Annotated[float, Field(ge=3)] = 10.0
    """A server that takes longer over one command counts as out of reach."""


class JournalSettings(SettingsPart):
    """The durable stream of events."""

    retention_seconds: Positive = 7 * 86_400
    """How long an event stays replayable after every group has acknowledged it."""
    max_entries: Annotated[int, Field(ge=100)] = 500_000
    """How many acknowledged events stay replayable at most, whatever their age."""
    seen_seconds: Positive = 7 * 86_400
    """How long a repeated event id is known."""
    batch: Annotated[int, Field(ge=1, le=10_000)] = 500
    claim_idle_seconds: Positive = 10.0
    """How long a reader may hold an entry before another claims it; routing one takes milliseconds."""


class HistorySettings(SettingsPart):
    """What is remembered of each event for ``sluice events``."""

    retention_seconds: Positive = 7 * 86_400
    max_events: Annotated[int, Field(ge=100)] = 200_000
    dead_letter_days: Positive | None = None
    """How long dead letters are kept; unset: until they are replayed or discarded."""
    prefect_days: Positive | None = None
    """How long the embedded Prefect server keeps runs that have ended, with their logs; unset: for ever."""


class ListenerSettings(SettingsPart):
    """What all listeners share."""

    backoff_seconds: Positive = 0.2
    max_backoff_seconds: Positive = 5.0
    batch: Annotated[int, Field(ge=1, le=10_000)] = 2000
    """How many messages of a Redis stream or list are read and journalled at once."""
    batch_bytes: Annotated[int, Field(ge=1024)] = 8 * 1024 * 1024
    """What a batch may weigh; large messages come in smaller batches."""
    claim_idle_seconds: Positive = 8.0
    """How long a consumer of a Redis stream may hold an entry without a sign of life before another claims it."""
    lease_seconds: Annotated[float, Field(ge=0.5, le=60)] = 3.0
    """How long the active listener of a pub/sub channel may be silent before another takes over."""
    buffer_bytes: Annotated[int, Field(ge=1024 * 1024)] = 64 * 1024 * 1024
    """What a pub/sub listener keeps in memory while the journal does not take it; then it stops reading."""


class FileSettings(DiskSettings):
    """How watched folders are observed, where a watch does not say otherwise."""

    rescan_seconds: Positive = 30.0
    """How often everything is looked at beside what the system announces."""
    poll_seconds: Positive = 1.0
    """The same where the system announces nothing, or not everything. A scan takes at most 1 % of the time."""
    stable_seconds: Positive = 2.0
    warn_after_seconds: Positive = 300.0
    cookie_seconds: Positive = 10.0
    """How often a cookie file asks whether the watcher still hears."""
    root_check_seconds: Positive = 1.0
    step_ms: Annotated[int, Field(ge=1, le=1000)] = 10
    """How often the watcher looks for news: half of it is the latency it adds, 10 costs 0.5 % of a core."""
    small_bytes: Annotated[int, Field(ge=0)] = 1024 * 1024
    """Up to here ``sha256: small`` digests a file."""
    batch: Annotated[int, Field(ge=1, le=5000)] = 500
    """Files a step: announced, or put away."""
    max_waiting: Annotated[int, Field(ge=100)] = 10_000
    """So many files that are not ready are followed one by one; those beyond are found again by the scans."""
    content_memory_seconds: Positive = 30 * 86_400
    """With ``rerun: content``, how long a content is known after its file has gone."""


class ResumerSettings(SettingsPart):
    """How signals are applied."""

    default_ttl_seconds: Positive = 86_400.0
    poll_seconds: Positive = 10.0
    """The safety net under the websocket: how often buffered signals are held against waiting runs."""
    at_once: Annotated[int, Field(ge=1, le=64)] = 4
    """How many signals one resumer applies side by side; one that must wait for its run holds up no other."""
    scan_seconds: Positive = 300.0
    """How often all paused runs are read, for deadlines and reminders that were not heard of."""
    lease_seconds: Annotated[float, Field(ge=2)] = 10.0
    """How long a resumer may be silent in the middle of a signal before another goes on with it."""
    call_seconds: Positive = 5.0
    """How long one call of Prefect's API may take."""
    max_buffered: Annotated[int, Field(ge=1)] = 100_000
    """How many early signals are kept at once; further ones are rejected into the dead letters."""
    retention_seconds: Positive = 7 * 86_400
    """How long a signal's outcome is known, and so its id for a duplicate."""
    max_records: Annotated[int, Field(ge=100)] = 200_000


class LogSettings(SettingsPart):
    """What is logged and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"
    """``auto``: readable on a terminal, JSON when not."""
    max_file_bytes: Annotated[int, Field(ge=10_000)] = 10 * 1024 * 1024
    """When a file in ``logs/`` of the home is closed and renamed to ``….1``, and that to ``….2``."""
    old_files: Annotated[int, Field(ge=1, le=1000)] = 5
    """How many of those there are at most, for each role."""


class Settings(BaseSettings):
    """Everything about an installation that is not a source or a rule."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid", validate_default=True
    )

    env: Literal["development", "staging", "production"] = "development"
    home: Path = Path(".sluice")
    config: Path = DEFAULT_PROJECT
    redis_url: Annotated[str, AfterValidator(redis_address)] | None = None
    """Unset: ``sluice up`` starts an embedded Valkey."""
    allowed_hosts: tuple[str, ...] = ()
    """Names beside loopback's under which browsers and HTTP clients reach this installation, as behind a proxy."""
    open: bool = False
    """Start everything without passwords: in development only, and on loopback only."""
    prefect_api_url: Annotated[AnyHttpUrl, BeforeValidator(web_address), AfterValidator(prefect_address)] | None = (
        Field(default=None, validation_alias="PREFECT_API_URL")
    )
    """Unset: ``sluice up`` starts an embedded Prefect server."""
    prefect_host: Literal["127.0.0.1", "0.0.0.0"] = "127.0.0.1"  # noqa: S104 - only where it is asked for
    """Embedded Prefect server: ``0.0.0.0`` where others reach it, as in a container whose ports are published."""
    database_url: str | None = None
    """Where the reference flows load data (any SQLAlchemy URL); unset: SQLite in the home."""
    masking_secret: SecretStr | None = None
    """What `ingest-file` makes keyed hashes of personal data with (``mask: {kind: hmac}`` in a contract)."""

    expected_roles: Annotated[tuple[RoleName, ...], Field(min_length=1)] = ROLES
    """Without these roles the installation is not ready. Any other counts while it runs, until it says good-bye."""

    ready_file: Path | None = None
    """Where a role writes with each report whether it is ready: the health check of a container reads it."""

    ports: Ports = Ports()
    limits: LimitSettings = LimitSettings()
    redis: RedisSettings = RedisSettings()
    journal: JournalSettings = JournalSettings()
    history: HistorySettings = HistorySettings()
    listeners: ListenerSettings = ListenerSettings()
    files: FileSettings = FileSettings()
    dispatcher: DispatcherSettings = DispatcherSettings()
    resumer: ResumerSettings = ResumerSettings()
    executor: ExecutorSettings = ExecutorSettings()
    api: ApiSettings = ApiSettings()
    health: HealthSettings = HealthSettings()
    canary: CanarySettings = CanarySettings()
    log: LogSettings = LogSettings()

    @field_validator("home", "config")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().resolve()

    @property
    def canary_in_force(self) -> CanarySettings | None:
        """The canary's settings, where it is on: unless it is said, in production where all roles run that it needs."""
        needs = set(ROLES) - {"api"}
        usual = self.env == "production" and needs <= set(self.expected_roles)
        on = usual if self.canary.enabled is None else self.canary.enabled
        return self.canary if on else None

    @property
    def redis_url_with_password(self) -> str | None:
        """``redis_url`` with the user and the password that the settings give beside it."""
        if self.redis_url is None:
            return None
        return url_with_password(self.redis_url, self.redis.username, self.redis.password)

    def as_redis_user(self, name: str) -> Settings:
        """These settings for a process that is the user ``sluice-NAME``, if ``redis.users_file`` is set.

        ``redis.username`` and ``redis.password`` win. Raises `ConfigError` where the file has no such user.
        """
        redis = self.redis
        if redis.users_file is None or redis.password is not None:
            return self
        user = redis.username or f"{USER_PREFIX}{name}"
        known = redis.model_copy(update={"username": user, "password": password_of(redis.users_file, user)})
        return self.model_copy(update={"redis": known})

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment variables win over what `load_settings` hands in from the environment's file."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings


def load_settings(*, redis_user: str = OPERATOR) -> Settings:
    """Read the settings; raises `ConfigError` naming each variable or key at fault.

    ``redis_user`` is a role, or who calls a command: see `Settings.as_redis_user`.
    """
    problems = list(variable_problems(os.environ, Settings))
    name = os.environ.get(f"{PREFIX}ENV", "development")
    file = CHECKOUT / "config" / "environments" / f"{name}.yaml"
    place = locate_project(os.environ, Path.cwd(), default=DEFAULT_PROJECT)
    values: dict[str, Any] = {"config": place.file, "home": place.home}
    if file.is_file():
        document = read_yaml(file)
        values |= document.data or {}
        problems += document.problems
    try:
        settings = Settings(**values)
    except ValidationError as error:
        for fault in error.errors():
            path = "__".join(str(part) for part in fault["loc"])
            variable = path if path.startswith("PREFECT_") else f"{PREFIX}{path.upper()}"
            got = "" if _is_secret(path) or "@" in str(fault["input"]) else f"; got {redacted(repr(fault['input']))}"
            said = fault["msg"].removeprefix("Value error, ")
            problems.append(f"setting {variable} (environment, or {file.name}): {said}{got}")
        raise ConfigError(*problems) from error
    except SettingsError as error:  # a list or a mapping that is not JSON, which is among the problems
        raise ConfigError(*problems or [str(error)]) from error
    problems += _openness(settings)
    if problems:
        raise ConfigError(*problems)
    return settings.as_redis_user(redis_user)


def _openness(settings: Settings) -> list[str]:
    if not settings.open:
        return []
    problems = []
    if settings.env != "development":
        problems.append(
            f"an installation without passwords (--open, SLUICE_OPEN) is for development only, and SLUICE_ENV is"
            f" {settings.env}: leave it out"
        )
    for variable, host in (("SLUICE_API__HOST", settings.api.host), ("SLUICE_PREFECT_HOST", settings.prefect_host)):
        if not is_loopback(host):
            problems.append(
                "an installation without passwords (--open, SLUICE_OPEN) is for this machine only, and"
                f" {variable} is {host}: leave one of the two out"
            )
    return problems


def _is_secret(name: str) -> bool:
    return name.lower().rpartition("__")[2] in {"password", "sentinel_password", "token", "sluice_masking_secret"}
