"""An answer that ends the connection reaches a client that is still sending."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from services.common.request_guard import App, Message, Receive, Scope, Send

LINGER_SECONDS: Final = 5.0
"""How long a client may go on sending what nobody wants before the connection ends under it."""


class LingeringClose:
    """An ASGI application before another one.

    A connection that is closed with unread bytes in it is reset, and the client loses the answer that it was sent.
    Here, after an answer with ``Connection: close``, the rest of the request is read and forgotten first.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, and see the answer off."""
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
