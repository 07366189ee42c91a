"""The sources of events as the project file describes them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Source(BaseModel):
    """What every source may say: the type of its plain-JSON messages, where it accepts such."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FilesSource(Source):
    """One watched folder."""

    path: Path
    """Relative paths are relative to the project file; the default inbox lies beside the state."""
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    recursive: bool = True
    ready: Literal["auto", "stable", "rename", "marker"] = "auto"
    on_success: Literal["archive", "keep", "delete"] = "archive"
    on_failure: Literal["archive", "keep"] = "archive"


class RedisSource(Source):
    """A pub/sub channel, a stream, a list, or a channel and a stream under one name."""

    channel: str | None = None
    pattern: bool = False
    stream: str | None = None
    list: str | None = None
    type: str | None = None
    """The type of plain JSON objects; without it only CloudEvents are accepted."""

    @model_validator(mode="after")
    def _something(self) -> RedisSource:
        if not (self.channel or self.stream or self.list):
            raise ValueError("name at least one of `channel`, `stream` and `list`")
        if self.pattern and not self.channel:
            raise ValueError("`pattern` belongs to a `channel`")
        return self


class HttpSource(Source):
    """One path of the HTTP listener, ``POST /events/NAME``."""

    type: str | None = None
    """The type of plain JSON objects; without it only CloudEvents are accepted."""


class Sources(BaseModel):
    """All sources, by kind and name. ``resume`` of Redis sources carries signals and not events."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: dict[str, FilesSource] = Field(default_factory=dict)
    redis: dict[str, RedisSource] = Field(default_factory=dict)
    http: dict[str, HttpSource] = Field(default_factory=dict)
