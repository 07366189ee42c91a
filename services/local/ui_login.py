"""A page that logs a browser in to Prefect's UI, for whoever holds a ticket (see `services.home.tickets`)."""

from __future__ import annotations

import base64
import json
import secrets
from typing import Any, Final

from services.common.request_guard import App, Message, Receive, Scope, Send
from services.home.home import LOGIN_PATH
from services.home.tickets import Tickets

_LIMIT: Final = 1024
_USED: Final = "This link has been used already, or is too old: the command `sluice ui` prints a new one."

# Prefect's UI, old and new, keeps the password in the local storage of its origin, which other ports do not share.
_PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Sluice: Prefect UI</title>
<p>Logging in …</p>
<script nonce="NONCE">
const ticket = location.hash.slice(1);
history.replaceState(null, "", location.pathname);
async function login() {
  const known = localStorage.getItem("prefect-password");
  const answer = await fetch(location.pathname, {
    method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({ticket})
  });
  if (answer.ok) {
    const {password} = await answer.json();
    if (password) localStorage.setItem("prefect-password", password);
  } else {
    const headers = known ? {Authorization: "Basic " + known} : {};
    if (!(await fetch("/api/admin/version", {headers})).ok) {
      document.querySelector("p").textContent = (await answer.json()).what_to_do;
      return;
    }
  }
  location.replace("/");
}
login().catch(error => { document.querySelector("p").textContent = "The login did not work: " + error; });
</script>
</html>
"""


class UiLogin:
    """An ASGI application in front of Prefect's: answers on ``LOGIN_PATH``, and passes everything else on."""

    def __init__(self, app: App, *, tickets: Tickets | None, auth_string: str | None) -> None:
        self._app = app
        self._tickets = tickets
        self._password = base64.b64encode(auth_string.encode()).decode() if auth_string else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the page, or exchange a ticket for the password."""
        if scope["type"] != "http" or scope["path"] != LOGIN_PATH:
            await self._app(scope, receive, send)
        elif scope["method"] == "POST":
            await self._exchange(scope, receive, send)
        elif scope["method"] in {"GET", "HEAD"}:
            nonce = secrets.token_urlsafe(16)
            policy = (
                f"default-src 'none'; script-src 'nonce-{nonce}'; connect-src 'self'; base-uri 'none'; "
                "form-action 'none'; frame-ancestors 'none'"
            )
            body = _PAGE.replace("NONCE", nonce).encode()
            await _answer(send, 200, body, b"text/html; charset=utf-8", (b"content-security-policy", policy.encode()))
        else:
            await _say(send, 405, {"what_to_do": "open this address in a browser"})

    async def _exchange(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with Prefect's password in exchange for a valid ticket, which is good once."""
        kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
        ticket = _ticket(await _body(receive)) if kind.startswith(b"application/json") else None
        if self._password is None:
            await _say(send, 200, {"password": None})
        elif ticket and self._tickets is not None and self._tickets.take(ticket):
            await _say(send, 200, {"password": self._password})
        else:
            await _say(send, 403, {"what_to_do": _USED})


def _ticket(body: bytes) -> str | None:
    try:
        ticket = json.loads(body)["ticket"]
    except (ValueError, TypeError, KeyError):
        return None
    return ticket if isinstance(ticket, str) else None


async def _body(receive: Receive) -> bytes:
    body = b""
    more = True
    while more and len(body) <= _LIMIT:
        message: Message = await receive()
        body += message.get("body", b"")
        more = message["type"] == "http.request" and message.get("more_body", False)
    return body


async def _say(send: Send, status: int, content: Any) -> None:
    await _answer(send, status, json.dumps(content).encode(), b"application/json")


async def _answer(send: Send, status: int, body: bytes, kind: bytes, *more: tuple[bytes, bytes]) -> None:
    headers = [
        (b"content-type", kind),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        *more,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
