"""Settings of the HTTP listener."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AnyHttpUrl, BeforeValidator, Field, model_validator

from config.settings_part import Positive, SettingsPart
from config.variables import web_address


class ApiSettings(SettingsPart):
    """The HTTP source, health and metrics."""

    host: str = "127.0.0.1"
    token: str | None = Field(default=None, repr=False)
    """If set, callers must send ``Authorization: Bearer <token>``; health needs none."""
    max_batch_bytes: Annotated[int, Field(ge=1024, le=256 * 1024 * 1024)] = 8 * 1024 * 1024
    """What a batch of events in one request may weigh; each of them is held to ``limits`` too."""
    header_timeout_seconds: Positive = 10.0
    body_timeout_seconds: Positive = 30.0
    journal_timeout_seconds: Positive = 10.0
    """How long a request waits for the journal before it is answered with 503."""
    endpoint_timeout_seconds: Positive = 60.0
    """How long the project's own endpoints may take to begin their answer."""
    max_connections: Annotated[int, Field(ge=1)] = 4000
    max_bodies_bytes: Annotated[int, Field(ge=1024 * 1024)] = 256 * 1024 * 1024  # of all that are on their way at once
    certificate_file: Path | None = None
    """With ``key_file``: the API speaks HTTPS. New files are taken without a restart."""
    key_file: Path | None = None
    client_ca_file: Path | None = None
    """If set, every caller must have a certificate of one of these authorities, beside its token."""
    public_url: Annotated[AnyHttpUrl, BeforeValidator(web_address)] | None = None  # what approval links begin with

    @property
    def scheme(self) -> Literal["http", "https"]:
        """What its addresses begin with."""
        return "https" if self.certificate_file is not None else "http"

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("`certificate_file` and `key_file` are set together")
        if self.client_ca_file is not None and self.certificate_file is None:
            raise ValueError("`client_ca_file` is for an API that has a `certificate_file`")
        return self
