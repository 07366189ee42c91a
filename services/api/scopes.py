"""Which callers a route is for, as FastAPI's dependencies."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Security
from fastapi.security import HTTPBearer
from starlette.requests import Request

from services.listeners.http.callers import Callers
from services.store.access.tokens import Limited, Scope

BEARER = Security(HTTPBearer(scheme_name="token", auto_error=False))
"""For routers: declares the token in the OpenAPI document."""


def callers_of(request: Request) -> Callers:
    """Return the callers of the application."""
    found: Callers = request.app.state.callers
    return found


def _caller_with(scope: Scope) -> Any:
    async def required(request: Request) -> Limited:
        return await callers_of(request).require(request, scope)

    return Depends(required)


Reader = Annotated[Limited, _caller_with("read")]
Signaller = Annotated[Limited, _caller_with("signal")]
Admin = Annotated[Limited, _caller_with("admin")]
