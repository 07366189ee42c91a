"""Tokens of the API, with scopes and limits. Redis holds their digests, never a token."""

from __future__ import annotations

import functools
import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from events.errors import NotFound, Refused
from events.glob import Globs, glob_problem
from events.suggest import did_you_mean
from services.store.connection import AsyncRedis, text
from services.store.keys import Key, is_text, pair
from services.store.unreadable import readable

Scope = Literal["publish", "signal", "read", "admin"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)

TOKENS: Final = "sluice:tokens"
"""Hash: id of a token to `AccessToken` as JSON."""

USES: Final = "sluice:tokens:used"
"""Hash: id of a token to when it was last used (ISO 8601)."""

_PREFIX: Final = "sluice_"
"""Prefix of every token, by which scanners of repositories can recognise one."""


class Limited(BaseModel):
    """The rights of a caller of the API; an empty limit does not limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
    scopes: tuple[Scope, ...]
    sources: tuple[str, ...] = ()
    """Globs: only events of these sources are published or read."""
    rules: tuple[str, ...] = ()
    """Only effects of these rules are read."""
    keys: tuple[str, ...] = ()
    """Globs: only signals to these keys are sent or read, and none to a run by its id."""
    per_second: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """Number of requests, and of events in them, that each instance of the API accepts a second."""

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        """Refuse scopes and limits that do not fit together: a limit without effect would seem to protect."""
        if not self.scopes:
            raise ValueError(f"it has no scope: choose from {', '.join(SCOPES)}")
        if problem := next(filter(None, map(glob_problem, (*self.sources, *self.keys))), None):
            raise ValueError(problem)
        for limit, given, of in (
            ("source", self.sources, {"publish", "read"}),
            ("rule", self.rules, {"read"}),
            ("key", self.keys, {"signal", "read"}),
        ):
            if given and "admin" in self.scopes:
                raise ValueError(f"the scope admin has no limits: leave the limit by {limit}, or the scope, out")
            if given and not of & set(self.scopes):
                raise ValueError(f"a limit by {limit} is for the scopes {' and '.join(sorted(of))}")
        return self

    def may(self, scope: Scope) -> bool:
        """Whether the caller has the scope; admin has all."""
        return scope in self.scopes or "admin" in self.scopes

    def may_source(self, source: str) -> bool:
        """Whether events of the source are in its limits."""
        return not self.sources or bool(_globs(self.sources).matches(source))

    def may_rules(self, rules: Iterable[str]) -> bool:
        """Whether an effect of one of these rules is in its limits."""
        return not self.rules or not set(self.rules).isdisjoint(rules)

    def may_key(self, key: str | None) -> bool:
        """Whether signals to the key are in its limits; None is a signal to a run by its id."""
        return not self.keys or (key is not None and bool(_globs(self.keys).matches(key)))


class AccessToken(Limited):
    """A token as Redis holds it."""

    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}$")]
    digest: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    created: AwareDatetime
    expires: AwareDatetime | None = None

    def is_good(self, now: datetime) -> bool:
        """Whether it has not expired."""
        return self.expires is None or now < self.expires

    def is_(self, token: str) -> bool:
        """Whether ``token`` is this one, in constant time."""
        return hmac.compare_digest(_digest(token), self.digest)


class AccessTokens:
    """The tokens. Raises `TransientError` or `Backpressure` when Redis cannot do it now."""

    def __init__(self, redis: AsyncRedis) -> None:
        self._redis = redis

    async def create(self, *, expires_seconds: float | None = None, **allowed: Any) -> tuple[AccessToken, str]:
        """Make a token that may do what is ``allowed`` (see `Limited`); returns it with its text, which is not kept.

        Raises `Refused` for invalid values, or for a name that another token has.
        """
        if any(one.name == allowed.get("name") for one in await self.all()):
            raise Refused("token-exists", f"there is a token {allowed['name']!r}: revoke it, or choose a name")
        id_, now = secrets.token_hex(4), datetime.now(UTC)
        whole = f"{_PREFIX}{id_}_{secrets.token_urlsafe(32)}"
        try:
            token = AccessToken(
                id=id_,
                digest=_digest(whole),
                created=now,
                expires=None if expires_seconds is None else now + timedelta(seconds=expires_seconds),
                **allowed,
            )
        except ValidationError as error:
            faults = (fault["msg"].removeprefix("Value error, ") for fault in error.errors())
            raise Refused("bad-token", f"there can be no such token: {'; '.join(faults)}") from error
        await self._redis.hset(TOKENS, id_, token.model_dump_json())
        return token, whole

    async def all(self) -> list[AccessToken]:
        """Every token, the oldest first."""
        found = await self._redis.hgetall(TOKENS)
        return sorted(readable(TOKENS, AccessToken.model_validate_json, found.values()), key=lambda one: one.created)

    async def revoke(self, id_or_name: str) -> AccessToken:
        """Revoke a token; raises `NotFound`."""
        known = await self.all()
        for token in known:
            if id_or_name in {token.id, token.name}:
                async with self._redis.pipeline(transaction=True) as pipeline:
                    pipeline.hdel(TOKENS, token.id)
                    pipeline.hdel(USES, token.id)
                    await pipeline.execute()
                return token
        near = did_you_mean(id_or_name, [token.name for token in known])
        raise NotFound(f"there is no token {id_or_name!r}: {near}")

    async def used(self, ids: Iterable[str]) -> None:
        """Record that these tokens were used just now."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        await self._redis.hset(USES, mapping=dict.fromkeys(ids, now))

    async def last_used(self) -> Mapping[str, datetime]:
        """Return when each token was last used, by its id; up to ten seconds late."""
        found = await self._redis.hgetall(USES)
        return dict(readable(USES, _use, found.items()))


def token_id(token: str) -> str:
    """Return the id in a token's text; empty for any other text."""
    return token.removeprefix(_PREFIX).partition("_")[0] if token.startswith(_PREFIX) else ""


def _digest(token: str) -> str:
    """Return the digest. A fast one suffices, because a token has 256 random bits."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


@functools.lru_cache(maxsize=256)
def _globs(patterns: tuple[str, ...]) -> Globs:
    return Globs(patterns)


def _use(row: tuple[bytes, bytes]) -> tuple[str, datetime]:
    return text(row[0]), datetime.fromisoformat(text(row[1]))


KEYS: Final = (
    Key(
        TOKENS,
        "hash",
        "token of the API: its digest and what it may do",
        "until it is revoked",
        pair(is_text, AccessToken.model_validate_json),
    ),
    Key(
        USES,
        "hash",
        "when a token was last used",
        "until it is revoked",
        pair(is_text, lambda at: datetime.fromisoformat(text(at))),
    ),
)
