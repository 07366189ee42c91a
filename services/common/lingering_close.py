"""Makes a response that closes the connection reach a client that is still sending."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from services.common.request_guard import App, Message, Receive, Scope, Send

LINGER_SECONDS: Final = 5.0
"""How long a client may continue to send before the connection is closed anyway."""


class LingeringClose:
    """An ASGI application in front of another one.

    A connection that is closed with unread bytes is reset, and the client loses the response. Here, after a response
    with ``Connection: close``, the rest of the request is first read and discarded.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and read its rest after a closing response."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        unread, closes = True, False

        async def receiving() -> Message:
            nonlocal unread
            message = await receive()
            unread = message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def read_on() -> None:
            while unread:
                await receiving()

        async def sending(message: Message) -> None:
            nonlocal closes
            if message["type"] == "http.response.start":
                closes = (b"connection", b"close") in {(name.lower(), value) for name, value in message["headers"]}
            elif closes and unread and not message.get("more_body", False):
                await send({**message, "more_body": True})
                with suppress(TimeoutError):
                    await asyncio.wait_for(read_on(), LINGER_SECONDS)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        await self._app(scope, receiving, sending)
