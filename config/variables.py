"""What is wrong with the environment variables of the settings, and what addresses in them must look like."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Any, Final, get_origin
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import AnyHttpUrl, BaseModel
from pydantic.fields import FieldInfo

from events.redact import redacted
from events.suggest import did_you_mean

PREFIX: Final = "SLUICE_"
_OF_RUNS: Final = frozenset({"SLUICE_FOLDERS", "SLUICE_FILE", "SLUICE_CONTRACTS"})
"""What the executor tells each run in its environment (see `sluice.protocol`): no settings of the installation."""
_OF_CLIENTS: Final = frozenset({"SLUICE_API_URL", "SLUICE_API_TOKEN"})
"""What `sluice env` prints for programs that ask over HTTP: no settings, and in the shell in which it was called."""
_REDIS_SCHEMES: Final = ("redis://", "rediss://", "unix://")


def variable_problems(environ: Mapping[str, str], model: type[BaseModel]) -> Iterator[str]:
    """Each variable that names no setting of ``model``, or holds a list or mapping that is not JSON, as a sentence."""
    for name, value in sorted(environ.items()):
        if not name.upper().startswith(PREFIX) or name in _OF_RUNS | _OF_CLIENTS:
            continue
        field = _field(name, model)
        if field is None:
            near = did_you_mean(name, _variables(model))
            yield f"environment variable {name}: Sluice has no such setting — {near}"
        elif get_origin(field.annotation) is tuple:
            yield from _no_list(name, value)
        elif _part(field) is not None:
            yield from _no_mapping(name, value)


def redis_address(url: str) -> str:
    """``url`` if it is one that a client of Redis takes; raises `ValueError`."""
    if not url.startswith(_REDIS_SCHEMES):
        host = url.rpartition("://")[2].rpartition("@")[2] or "127.0.0.1:6379/0"
        raise ValueError(f"it must begin with redis://, rediss:// or unix:// — such as redis://{host}")
    return url


def web_address(url: object) -> object:
    """``url`` if it begins as one of a web server does; raises `ValueError`."""
    if isinstance(url, str) and "://" not in url:
        raise ValueError(f"it must begin with http:// or https:// — such as http://{redacted(url)}")
    return url


def prefect_address(url: AnyHttpUrl) -> AnyHttpUrl:
    """``url`` if it can be that of an API of Prefect, which lies below ``/api``; raises `ValueError`."""
    if "api" not in (url.path or "").split("/"):
        parts = urlsplit(redacted(str(url)))
        fixed = parts._replace(path=f"{parts.path.rstrip('/')}/api").geturl()
        raise ValueError(f"the path of Prefect's API is missing — write {fixed}")
    return url


def url_with_password(url: str, username: str | None, password: str | None) -> str:
    """``url`` with these in it; what is None stays as the URL has it."""
    parts = urlsplit(url)
    before, _, host = parts.netloc.rpartition("@")
    user, _, secret = before.partition(":")
    user = quote(username, safe="") if username is not None else user
    secret = quote(password, safe="") if password is not None else secret
    if not user and not secret:
        return url
    return urlunsplit(parts._replace(netloc=f"{user}:{secret}@{host}" if secret else f"{user}@{host}"))


def is_loopback(host: str) -> bool:
    """Whether a server that listens on ``host`` is reached from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _field(name: str, model: type[BaseModel]) -> FieldInfo | None:
    first, _, rest = name[len(PREFIX) :].lower().partition("__")
    field = model.model_fields.get(first)
    if field is None or not rest:
        return field
    part = _part(field)
    return part.model_fields.get(rest.split("__")[0]) if part is not None else None


def _part(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _variables(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        part = _part(field)
        if part is not None:
            yield from (f"{PREFIX}{name}__{inner}".upper() for inner in part.model_fields)
        elif field.validation_alias is None:
            yield f"{PREFIX}{name}".upper()


def _no_list(name: str, value: str) -> Iterator[str]:
    if not isinstance(_parsed(value), list):
        words = [word.strip(" '\"[]") for word in value.split(",")]
        shown = redacted(value)
        yield (
            f"environment variable {name}: {shown!r} is no list in JSON — write {name}='{redacted(json.dumps(words))}'"
        )


def _no_mapping(name: str, value: str) -> Iterator[str]:
    if not isinstance(_parsed(value), dict):
        yield f"environment variable {name}: it is no mapping in JSON — set its parts instead, as {name}__PART"


def _parsed(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return None
