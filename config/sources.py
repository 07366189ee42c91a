"""The sources of events as the project file describes them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    field_validator,
    model_validator,
)

from config.paths import PathTemplate, check_data_name, check_folder_name, check_path_glob
from events.errors import RejectedEvent
from events.event import FILE_ARRIVED, RESUME, Attribute, is_own_type
from events.untrusted_json import refuse_hydration

EVENTS: Final = "sluice.events"
DEFAULT_TRIM_SECONDS: Final = 86_400.0
"""How long acknowledged entries stay in the streams that Sluice itself opens."""

PositiveSeconds = Annotated[float, Field(gt=0)]


def _redis_name(value: str) -> str:
    if value.startswith("sluice:"):
        raise ValueError(f"{value!r}: keys that begin with `sluice:` are Sluice's own; choose another name")
    return value


def _outside_type(value: str) -> str:
    if is_own_type(value):
        raise ValueError(f"{value!r}: types that begin with `sluice.` are Sluice's own; choose another one")
    return value


OutsideType = Annotated[Attribute, AfterValidator(_outside_type)]
"""A type that messages from outside may have."""

RedisName = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$"), AfterValidator(_redis_name)
]
FolderName = Annotated[str, AfterValidator(check_folder_name)]


class Source(BaseModel):
    """What every source may say: the type of its plain-JSON messages, where it accepts such."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class FilesSource(Source):
    """One watched folder. Where a value is None, the installation's `FileSettings` decide."""

    path: Path
    """Relative paths are relative to the project file; the default inbox lies beside the state."""
    include: tuple[str, ...] = ("*",)
    """Globs of which a file must match one. Without a slash a glob is held against the name in any directory, with one
    against the path below the watch (``**`` for any number of directories). A leading dot must be matched literally."""
    exclude: tuple[str, ...] = ()
    """Globs of which a file must match none; here ``*`` matches leading dots too."""
    ignore_case: bool = False
    """Whether ``include`` and ``exclude`` match names in any letter case: ``*.csv`` takes ``REPORT.CSV`` too."""
    recursive: bool = True
    type: Attribute = FILE_ARRIVED
    """The type of the watch's events."""
    data: dict[str, JsonValue] = Field(default_factory=dict)
    """Put into the data of each event."""
    template: str | None = None
    """For example ``{customer}/{year:int}/{rest:path}``: parts of the path to put into the data of each event."""
    ready: Literal["auto", "stable", "rename", "marker"] = "auto"
    """When a file is complete; see docs/watched-folders.md."""
    stable_seconds: PositiveSeconds | None = None
    quiet_ms: Annotated[int, Field(ge=0, le=3_600_000)] = 10
    """How long a file must have been left alone, for writers that close it and open it again."""
    marker: str = "{name}.done"
    """With ``ready: marker``, the name of the file that says that ``{name}`` (or ``{stem}``, without the suffix) is
    complete."""
    sha256: Literal["never", "small", "always"] = "small"
    """Whether the content's digest is in the data; ``small`` is up to `FileSettings.small_bytes`."""
    polling: Literal["auto", "always", "never"] = "auto"
    rerun: Literal["drop", "content"] = "drop"
    """Whether the same content under the same name runs each time it is dropped, or only when the content differs."""
    on_success: Literal["archive", "keep", "delete"] = "archive"
    on_failure: Literal["archive", "keep"] = "archive"
    done: FolderName = "done"
    """The folder inside the watch for files whose runs went well."""
    failed: FolderName = "failed"
    """The folder inside the watch for files whose runs did not."""
    warn_after: PositiveSeconds | None = None
    """After so many seconds of waiting a file is named in the log."""
    rescan_seconds: PositiveSeconds | None = None

    @field_validator("path")
    @classmethod
    def _encodable(cls, value: Path) -> Path:
        try:
            str(value).encode()
        except UnicodeEncodeError:
            raise ValueError("the path is not UTF-8") from None
        return value

    @field_validator("include", "exclude")
    @classmethod
    def _globs(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        problems = []
        for glob in value:
            try:
                check_path_glob(glob)
            except ValueError as error:
                problems.append(str(error))
        if problems:
            raise ValueError("; ".join(problems))
        return value

    @field_validator("data")
    @classmethod
    def _safe(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        try:
            refuse_hydration(value)
        except RejectedEvent as error:
            raise ValueError(error.reason) from error
        for name in value:
            check_data_name(name)
        return value

    @field_validator("template")
    @classmethod
    def _template(cls, value: str | None) -> str | None:
        if value is not None:
            PathTemplate(value)
        return value

    @field_validator("marker")
    @classmethod
    def _marker(cls, value: str) -> str:
        if value.count("{name}") + value.count("{stem}") != 1 or "/" in value or value in {"{name}", "{stem}"}:
            raise ValueError("a marker is a file name with `{name}` or `{stem}` in it once, such as `{name}.done`")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.include:
            raise ValueError("`include` is empty: no file would ever match")
        if self.done == self.failed:
            raise ValueError("`done` and `failed` are the same folder")
        if self.rerun == "content" and self.sha256 == "never":
            raise ValueError("`rerun: content` compares contents, which `sha256: never` forbids to read")
        captured = PathTemplate(self.template).names if self.template else ()
        twice = sorted(set(captured) & set(self.data))
        if twice:
            raise ValueError(f"`template` and `data` both set {', '.join(twice)}")
        return self


class RedisSource(Source):
    """A pub/sub channel, a stream, a list, or a channel and a stream under one name."""

    channel: RedisName | None = None
    pattern: bool = False
    """The channel is a glob: ``*``, ``?`` and ``[...]``, as Redis' PSUBSCRIBE has them."""
    stream: RedisName | None = None
    trim_after_seconds: PositiveSeconds | None = None
    """Entries of the stream that are this old are deleted once every consumer group has acknowledged them; without it
    Sluice deletes nothing from a stream."""
    list: RedisName | None = None
    pop: Literal["left", "right"] = "left"
    """The side that elements are taken from: ``left`` where publishers RPUSH, ``right`` where they LPUSH."""
    type: OutsideType | None = None
    """The type of plain JSON objects; without it only CloudEvents are accepted."""
    carries: Literal["events", "signals"] = "events"
    """``signals``: resume messages. Where no source carries them, ``sluice.resume`` does (channel and stream)."""

    @model_validator(mode="after")
    def _something(self) -> RedisSource:
        if not (self.channel or self.stream or self.list):
            raise ValueError("name at least one of `channel`, `stream` and `list`")
        if self.pattern and not self.channel:
            raise ValueError("`pattern` belongs to a `channel`")
        if self.trim_after_seconds is not None and not self.stream:
            raise ValueError("`trim_after_seconds` belongs to a `stream`")
        if self.pop != "left" and not self.list:
            raise ValueError("`pop` belongs to a `list`")
        if self.stream and self.stream == self.list:
            raise ValueError(f"one key cannot be a stream and a list: {self.stream!r}")
        return self


class HttpSource(Source):
    """One path of the HTTP listener, ``POST /events/NAME``."""

    type: OutsideType | None = None
    """The type of plain JSON objects; without it only CloudEvents are accepted."""


HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,80}$")]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]

_DELIVERY: Final = {"standard-webhooks": "webhook-id", "github": "X-GitHub-Delivery", "shared-secret": None}


class HookSource(Source):
    """A webhook of another system, ``POST /hooks/NAME``: each delivery that is signed as agreed becomes an event."""

    verify: Literal["standard-webhooks", "github", "shared-secret"]
    """How a delivery proves whom it is from: by Standard Webhooks (``webhook-signature``), by GitHub's
    ``X-Hub-Signature-256``, or by a secret in a header."""
    secret_env: VariableName | tuple[VariableName, ...]
    """The environment variable with the secret; of several, any secret will do, as while one is replaced."""
    type: OutsideType
    """The type of the events."""
    type_header: HeaderName | None = None
    """A header whose value stands behind the type and a dot; for GitHub ``X-GitHub-Event``, so that ``type: github``
    makes ``github.push``."""
    id_header: HeaderName | None = None
    """The header with the delivery's id, which becomes the event's: a repeated delivery starts nothing. Standard
    Webhooks and GitHub have theirs; without one, each delivery is another event."""
    secret_header: HeaderName = "X-Webhook-Secret"  # noqa: S105 - a name
    """With ``verify: shared-secret``, the header with the secret."""
    replay_seconds: PositiveSeconds = 300.0
    """How old a delivery's signed time may be. GitHub signs no time: there the same body is taken once in this time."""

    @property
    def secret_names(self) -> tuple[str, ...]:
        """The environment variables with the secrets."""
        return (self.secret_env,) if isinstance(self.secret_env, str) else self.secret_env

    @property
    def delivery_header(self) -> str | None:
        """The header with the delivery's id."""
        return self.id_header or _DELIVERY[self.verify]

    @property
    def kind_header(self) -> str | None:
        """The header whose value stands behind the type."""
        return self.type_header or ("X-GitHub-Event" if self.verify == "github" else None)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.secret_names:
            raise ValueError("`secret_env` names no variable")
        if self.verify == "standard-webhooks" and self.id_header is not None:
            raise ValueError("`id_header`: Standard Webhooks signs the id in `webhook-id`; leave it out")
        return self


class HttpSources(BaseModel):
    """The paths of the HTTP listener, by name, and under ``hooks`` the webhooks of other systems."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    __pydantic_extra__: dict[str, HttpSource]

    others: ClassVar[type[BaseModel]] = HttpSource
    """What stands under any other key."""

    hooks: dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,80}$")], HookSource] = Field(
        default_factory=dict
    )
    """Webhooks, each ``POST /hooks/NAME``."""

    @field_validator("hooks", mode="before")
    @classmethod
    def _are_hooks(cls, value: object) -> object:
        if isinstance(value, dict) and isinstance(value.get("type"), str):
            raise ValueError(  # noqa: TRY004 - pydantic takes no TypeError for a fault
                "`hooks` holds the webhooks of other systems: give the source POST /events/hooks another name"
            )
        return value

    @property
    def named(self) -> dict[str, HttpSource]:
        """The sources ``POST /events/NAME``."""
        return dict(self.__pydantic_extra__ or {})


class Sources(BaseModel):
    """All sources, by kind and name."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    files: dict[str, FilesSource] = Field(default_factory=dict)
    redis: dict[str, RedisSource] = Field(default_factory=dict)
    http: HttpSources = HttpSources()

    def redis_with_defaults(self, *, project: str | None = None) -> dict[str, RedisSource]:
        """The Redis sources, with `sluice.resume` and `sluice.events` (channel and stream) unless others take them.

        The channels have the name of the ``project`` behind theirs, if one is given.
        """
        found = dict(self.redis)
        if not any(source.carries == "signals" for source in self.redis.values()):
            found[RESUME] = _default(RESUME, project, carries="signals")
        if not any(EVENTS in (source.channel, source.stream) for source in self.redis.values()):
            found[EVENTS] = _default(EVENTS, project, carries="events")
        return found


def default_channel(name: str, project: str | None) -> str:
    """``sluice.events``, or ``sluice.events.PROJECT``."""
    return f"{name}.{project}" if project else name


def _default(name: str, project: str | None, *, carries: Literal["events", "signals"]) -> RedisSource:
    channel = default_channel(name, project)
    return RedisSource(channel=channel, stream=name, carries=carries, trim_after_seconds=DEFAULT_TRIM_SECONDS)
