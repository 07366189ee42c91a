"""Which callers a route is for, as FastAPI's dependencies."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Security
from fastapi.security import HTTPBearer
from starlette.requests import Request

from services.listeners.http.callers import Callers
from services.store.access.tokens import Limited

BEARER = Security(HTTPBearer(scheme_name="token", auto_error=False))
"""For routers: says in the OpenAPI document that a token is sent."""


def callers_of(request: Request) -> Callers:
    """Those of the application."""
    found: Callers = request.app.state.callers
    return found


async def _reader(request: Request) -> Limited:
    return await callers_of(request).require(request, "read")


async def _signaller(request: Request) -> Limited:
    return await callers_of(request).require(request, "signal")


async def _admin(request: Request) -> Limited:
    return await callers_of(request).require(request, "admin")


Reader = Annotated[Limited, Depends(_reader)]
Signaller = Annotated[Limited, Depends(_signaller)]
Admin = Annotated[Limited, Depends(_admin)]
