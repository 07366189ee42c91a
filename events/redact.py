"""Redacts secrets in texts: credentials in URLs and in headers are replaced by ``***``."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit, urlunsplit

HIDDEN: Final = "***"

# In a web URL an `@` may be part of the path; elsewhere it ends the credentials, whatever they contain.
_WEB: Final = re.compile(r"(https?|wss?)://[^\s/?#\"'<>]*@", re.IGNORECASE)
_OTHER: Final = re.compile(r"(?<!http)(?<!https)(?<!ws)(?<!wss)://([^\s:/?#@\"'<>]*):[^\s\"'<>]*@", re.IGNORECASE)
_QUERY: Final = re.compile(r"([?&](?:password|auth_string|token)=)[^&\s\"'<>]+", re.IGNORECASE)
_HEADER: Final = re.compile(r"\b(bearer|basic) +[a-z0-9._~+/=-]{8,}", re.IGNORECASE)


def redacted(text: str) -> str:
    """``text`` without the passwords of URLs (and without all credentials of web addresses) and of HTTP headers."""
    if "://" in text:
        text = _WEB.sub(rf"\1://{HIDDEN}@", text)
        text = _OTHER.sub(rf"://\1:{HIDDEN}@", text)
        text = _QUERY.sub(rf"\1{HIDDEN}", text)
    return _HEADER.sub(rf"\1 {HIDDEN}", text)


def without_credentials(url: str) -> str:
    """Return a web URL without credentials, for people to open."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
