"""Authenticates callers of the API, by tokens with scopes, and limits what they may do and how often."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

import structlog
from starlette.requests import Request

from events.errors import Backpressure, TransientError
from services.common import metrics
from services.listeners.http.peer import is_own_user
from services.listeners.http.problem import ProblemDetails
from services.store.access.tokens import AccessToken, AccessTokens, Limited, Scope, token_id

REFRESH_SECONDS: Final = 1.0
"""How long a revoked token may still be accepted."""
_USED_SECONDS: Final = 10.0
_QUIET_SECONDS: Final = 1.0
"""At most one refused call with the same reason is logged in this time, with the number of the others."""

ANYBODY: Final = Limited(name="anybody", scopes=("admin",))
"""The caller if the API is open, with the installation's own token, or from a program of Sluice's own user."""

log = structlog.get_logger()


class Callers:
    """Recognises callers.

    ``token`` is the installation's own; without it the API is open. ``tokens`` are those of ``sluice token``, read
    again every second; while Redis does not answer, those last read count. With ``trusts_own_user``, programs of this
    process's user on this machine need no token.
    """

    def __init__(self, *, token: str | None, tokens: AccessTokens | None, trusts_own_user: bool) -> None:
        self._own = _digest(token) if token else None
        self._store = tokens
        self._trusts_own_user = trusts_own_user
        self._known: dict[str, AccessToken] = {}
        self._read_at = -math.inf
        self._reading = asyncio.Lock()
        self._allowances: dict[str, _Allowance] = {}
        self._used: set[str] = set()
        self._used_at = time.monotonic()
        self._refusals: dict[str, _Refusals] = {}

    async def require(self, request: Request, scope: Scope) -> Limited:
        """Return the caller, who has the scope. Raises `ProblemDetails` (401, 403, 429)."""
        caller = await self.of(request)
        if caller is None:
            self.refused(request, "unauthorized")
            raise ProblemDetails(
                401,
                "unauthorized",
                "the request carries no valid token",
                "send `Authorization: Bearer <token>`: one that `sluice token create` made, the one in"
                " SLUICE_API__TOKEN, or the one that `sluice env` prints",
            )
        if not caller.may(scope):
            raise self.forbidden(request, caller, f"has not the scope {scope!r}")
        self.charge(request, caller)
        return caller

    async def of(self, request: Request) -> Limited | None:
        """Return the caller, whatever their scopes; None if there is no valid token."""
        if self._own is None:
            return ANYBODY
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            token = token.strip()
            # Digests are compared, so that the time taken reveals nothing about the token, not even its length.
            if hmac.compare_digest(_digest(token), self._own):
                return ANYBODY
            return await self._known_by(token)
        own = self._trusts_own_user and "authorization" not in request.headers
        return ANYBODY if own and is_own_user(request.scope.get("client"), request.scope.get("server")) else None

    def demand_sources(self, request: Request, caller: Limited, sources: Iterable[str]) -> None:
        """Raise the 403 if one of the sources is outside of the caller's limits."""
        if caller.sources:
            for source in sources:
                if not caller.may_source(source):
                    limit = ", ".join(caller.sources)
                    raise self.forbidden(request, caller, f"is limited to the sources {limit}: {source!r} is none")

    def demand_key(self, request: Request, caller: Limited, key: str | None) -> None:
        """Raise the 403 for signals that are outside of the caller's limits; None is one to a run by its id."""
        if not caller.may_key(key):
            limit = ", ".join(caller.keys)
            said = "a run's id is none" if key is None else f"{key!r} is none"
            raise self.forbidden(request, caller, f"is limited to the keys {limit}: {said}")

    def forbidden(self, request: Request, caller: Limited, why: str) -> ProblemDetails:
        """Return the 403 for a caller who may not do that, and count and log it."""
        self.refused(request, "forbidden", caller)
        return ProblemDetails(
            403,
            "forbidden",
            f"the token {caller.name!r} {why}",
            "use a token that may do it: `sluice token list` shows what each of them may",
        )

    def charge(self, request: Request, caller: Limited) -> None:
        """Count one request against the caller's rate. Raises the 429."""
        if caller.per_second is None:
            return
        allowance = self._allowances.setdefault(caller.name, _Allowance(caller.per_second))
        wait = allowance.take(caller.per_second)
        if wait:
            self.refused(request, "too-many", caller)
            raise ProblemDetails(
                429,
                "too-many",
                f"the token {caller.name!r} may send {caller.per_second:g} a second",
                "send more slowly, several events in one request counting as several; Retry-After says when to go on",
                retry_after_seconds=math.ceil(wait),
            )

    def charge_more(self, caller: Limited, count: int) -> None:
        """Count ``count`` more for an admitted request; exceeding the rate delays the caller's next requests."""
        if caller.per_second is not None:
            self._allowances[caller.name].owe(count)

    def refused(self, request: Request, reason: str, caller: Limited | None = None) -> None:
        """Count a refused call, and log it."""
        metrics.http_refused.labels(reason).inc()
        before = self._refusals.setdefault(reason, _Refusals())
        if (more := before.to_tell()) is not None:
            log.warning(
                "HTTP call refused",
                reason=reason,
                method=request.method,
                path=request.url.path,
                token=caller.name if caller else None,
                peer=request.client.host if request.client else None,
                others_since_the_last_line=more,
            )

    async def _known_by(self, token: str) -> Limited | None:
        """Return the token's rights; None if there is no such token, or it has expired."""
        if self._store is None:
            return None
        now = time.monotonic()
        if now - self._read_at > REFRESH_SECONDS:
            async with self._reading:
                if time.monotonic() - self._read_at > REFRESH_SECONDS:
                    await self._read(self._store)
        found = self._known.get(token_id(token))
        if found is None or not found.is_(token) or not found.is_good(datetime.now(UTC)):
            return None
        self._used.add(found.id)
        return found

    async def _read(self, store: AccessTokens) -> None:
        """Read all tokens, and record their last use. While Redis is away the known ones stay valid."""
        try:
            self._known = {token.id: token for token in await store.all()}
            if self._used and time.monotonic() - self._used_at > _USED_SECONDS:
                self._used_at, used = time.monotonic(), self._used & self._known.keys()
                self._used = set()
                if used:
                    await store.used(used)
        except (TransientError, Backpressure):
            if self._read_at == -math.inf:
                raise
        self._read_at = time.monotonic()


class _Allowance:
    """A token bucket: it fills at the caller's rate and holds one second's worth."""

    def __init__(self, per_second: float) -> None:
        self._left = max(per_second, 1.0)
        self._at = time.monotonic()

    def take(self, per_second: float) -> float:
        """Take one, and return 0; if there is none, return the seconds until there is."""
        now = time.monotonic()
        self._left = min(max(per_second, 1.0), self._left + (now - self._at) * per_second)
        self._at = now
        if self._left < 1:
            return (1 - self._left) / per_second
        self._left -= 1
        return 0.0

    def owe(self, count: int) -> None:
        """Take ``count``, even if the bucket has less."""
        self._left -= count


class _Refusals:
    def __init__(self) -> None:
        self._at = -math.inf
        self._others = 0

    def to_tell(self) -> int | None:
        """Return the number of refusals since the last that was logged; None if this one is not to be logged."""
        now = time.monotonic()
        if now - self._at < _QUIET_SECONDS:
            self._others += 1
            return None
        self._at, others, self._others = now, self._others, 0
        return others


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
