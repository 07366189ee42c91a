"""Deployments that `sluice deploy` has registered: only these are the project's own.

Anybody who can reach Prefect's API can give a deployment any tag or label. So the record is kept here, with the
registered file, and a deployment that is changed afterwards is not the project's.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from services.store.connection import AsyncRedis, SyncRedis
from services.store.keys import Key, is_text
from services.store.redis_errors import translated
from services.store.unreadable import readable

KEY: Final = "sluice:registered"
"""A hash: a deployment's id in Prefect → its `RegisteredFile`."""

_MARK: Final = "written"
"""A field that is no deployment: a hash without it was lost with all of Redis' data, not emptied by a deploy."""


@dataclass(frozen=True, slots=True)
class RegisteredFile:
    """The flow of a deployment: its folder, and its file and function in it."""

    path: str
    entrypoint: str


async def remember(redis: AsyncRedis, deployment_id: str, file: RegisteredFile) -> None:
    """Record the deployment as the project's own. Raises `TransientError`."""
    fields = _fields({deployment_id: file})
    await redis.hset(KEY, mapping=fields)


async def forget(redis: AsyncRedis, deployment_id: str) -> None:
    """Delete the record of a deployment. Raises `TransientError`."""
    await redis.hdel(KEY, deployment_id)


def has_registered_files(redis: SyncRedis) -> bool:
    """Whether a deployment has been registered. Raises `TransientError`."""
    with translated():
        fields: int = redis.hlen(KEY)
    return fields > 1  # beside the mark


class RegisteredFiles:
    """The record, cached in this process; its methods block."""

    def __init__(self, redis: SyncRedis) -> None:
        self._redis = redis
        self._known: Mapping[str, RegisteredFile] = {}

    def refresh(self) -> bool:
        """Read the record and return whether it has changed; if Redis has lost all of it, write the cached one again.

        Raises `TransientError`; then the cached record still counts.
        """
        with translated():
            found: dict[bytes, bytes] = self._redis.hgetall(KEY)  # type: ignore[assignment] # a blocking client
            if not found and self._known:
                self._redis.hset(KEY, mapping=_fields(self._known))
                return False
        rows = [row for row in found.items() if row[0] != _MARK.encode()]
        before, self._known = self._known, dict(readable(KEY, lambda row: (is_text(row[0]), _parsed(row[1])), rows))
        return self._known != before

    @property
    def files(self) -> Collection[RegisteredFile]:
        """All registered files."""
        return self._known.values()

    def get(self, deployment_id: str) -> RegisteredFile | None:
        """Return the registered file of the deployment."""
        return self._known.get(deployment_id)


def _fields(files: Mapping[str, RegisteredFile]) -> dict[Any, Any]:
    return {_MARK: "", **{name: json.dumps(asdict(file)) for name, file in files.items()}}


def _parsed(value: bytes) -> RegisteredFile:
    content: Any = json.loads(value)
    return RegisteredFile(path=str(content["path"]), entrypoint=str(content["entrypoint"]))


def _is_field(name: bytes, value: bytes) -> None:
    if is_text(name) != _MARK:
        _parsed(value)


KEYS: Final = (
    Key(KEY, "hash", "file of a deployment that `sluice deploy` registered", "until it is removed", _is_field),
)
