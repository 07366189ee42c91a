"""Refuses requests of web pages of other origins to an HTTP server on this machine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, MutableMapping
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.responses import JSONResponse

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_POLICY_VIOLATION: Final = 1008

_HEADERS: Final = (
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
)
"""Headers that keep pages of other origins from framing ours, keeping its window, or embedding our responses."""


class RequestGuard:
    """An ASGI application in front of another one.

    It refuses requests whose Host is not this server's (a name that resolves here by DNS rebinding), and those that a
    browser sends for a page of another origin; another port is another origin. Requests of programs, which send neither
    ``Origin`` nor ``Sec-Fetch-Site``, pass, and so does following a link from elsewhere. A request with an ambiguous
    end is refused as well.

    Hosts of this server are loopback's names, ``names``, and with ``any_address`` every address: an address cannot be
    rebound.
    """

    def __init__(self, app: App, *, names: Collection[str] = (), any_address: bool = False) -> None:
        self._app = app
        self._names = frozenset(name.lower() for name in names)
        self._any_address = any_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond with 400, 403 or 421, or pass the request on."""
        kind = scope["type"]
        refusal = self._refusal(scope) if kind in {"http", "websocket"} else None
        if refusal is None:
            await self._app(scope, receive, _with_headers(send) if kind == "http" else send)
        elif kind == "http":
            await _refused(*refusal)(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": refusal[2][:120]})

    def _refusal(self, scope: Scope) -> tuple[int, str, str, str] | None:
        """Return why a request is refused, as status, code, reason and remedy; None if it is not.

        A browser sends requests to this machine also for a page of another origin. Such a request names the page's
        origin, or after DNS rebinding the page's host.
        """
        headers = scope["headers"]
        names = {name for name, _ in headers}
        if b"transfer-encoding" in names and (b"content-length" in names or scope.get("http_version") == "1.0"):
            other = "Content-Length" if b"content-length" in names else "HTTP/1.0, which has none"
            said = f"the request has Transfer-Encoding and {other}: a server before this one may see its end elsewhere"
            return HTTPStatus.BAD_REQUEST, "ambiguous-length", said, "send one of them"
        host = _only(headers, b"host")
        if host is None or not self._is_ours(_name(host)):
            said = "the request names no host, or several" if host is None else f"{_shown(host)} is not a host of ours"
            return (
                HTTPStatus.MISDIRECTED_REQUEST,
                "foreign-host",
                said,
                "use the address that `sluice status` shows, or put the name into SLUICE_ALLOWED_HOSTS",
            )
        origins = [value.decode("latin-1") for name, value in headers if name == b"origin"]
        if any(not self._is_same(origin, host) for origin in origins):
            return _foreign_page(f"a page of {_shown(origins[0])}")
        site = _first(headers, b"sec-fetch-site")
        if not origins and site in {"cross-site", "same-site"} and not _follows_link(scope):
            return _foreign_page("a page of another origin")
        return None

    def _is_ours(self, name: str) -> bool:
        return name in self._names or _is_loopback(name) or (self._any_address and _is_address(name))

    def _is_same(self, origin: str, host: str) -> bool:
        """Return whether a page of this origin is one of ours: from the request's host, or another of our names."""
        try:
            parts = urlsplit(origin)
            name = (parts.hostname or "").lower()
        except ValueError:
            return False
        if parts.scheme not in {"http", "https"} or not name:
            return False
        # Another port of this machine is another program, whatever the machine's names.
        return parts.netloc.lower() == host.lower() or (name in self._names and not _is_loopback(name))


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    return name == "localhost" or (_is_address(name) and ip_address(name).is_loopback)


def _only(headers: Collection[tuple[bytes, bytes]], wanted: bytes) -> str | None:
    found = [value for name, value in headers if name == wanted]
    return found[0].decode("latin-1").strip() if len(found) == 1 else None


def _first(headers: Collection[tuple[bytes, bytes]], wanted: bytes) -> str:
    return next((value.decode("latin-1").lower() for name, value in headers if name == wanted), "")


def _name(host: str) -> str:
    """The host without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).removesuffix(".").lower()


def _follows_link(scope: Scope) -> bool:
    headers = scope["headers"]
    return (
        scope["type"] == "http"
        and scope["method"] in {"GET", "HEAD"}
        and _first(headers, b"sec-fetch-mode") == "navigate"
        and _first(headers, b"sec-fetch-dest") == "document"
    )


def _foreign_page(who: str) -> tuple[int, str, str, str]:
    return (
        HTTPStatus.FORBIDDEN,
        "foreign-origin",
        f"the request comes from {who}, and other origins may not use this server",
        "send it from a program, or put the name of the page's host into SLUICE_ALLOWED_HOSTS",
    )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 100 else text[:100] + "…")  # noqa: PLR2004 - enough to recognize it


def _refused(status: int, code: str, detail: str, what_to_do: str) -> App:
    """Return the application that answers a refused request with a problem document, and closes the connection."""
    title = HTTPStatus(status).phrase
    problem = {"type": "about:blank", "title": title, "status": status, "code": code, "detail": detail}
    headers = {name.decode(): value.decode() for name, value in _HEADERS}
    return JSONResponse(
        problem | {"what_to_do": what_to_do},
        status,
        {**headers, "connection": "close"},  # the request's body has not been read
        media_type="application/problem+json",
    )


def _with_headers(send: Send) -> Send:
    """Return a send function that adds our security headers to each response that lacks them."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name for name, _ in message.get("headers", ())}
            added = [pair for pair in _HEADERS if pair[0] not in present]
            message = {**message, "headers": [*message.get("headers", ()), *added]}
        await send(message)

    return sending
