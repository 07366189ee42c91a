"""The common frame of HTML pages: their style, and the headers that limit what a browser may do with them."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import Final

from markdown_it import MarkdownIt
from starlette.responses import HTMLResponse, Response

_CSS: Final = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;margin:0;background:Canvas;color:CanvasText}
main{max-width:46rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}h3{font-size:1rem}
pre{overflow:auto;padding:.75rem;border:1px solid GrayText;border-radius:.4rem;font-size:.85rem}
table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;vertical-align:top;text-align:left}
label,legend{font-weight:600}fieldset{border:0;padding:0;margin:1rem 0}
input[type=text],input[type=number],textarea,select{font:inherit;width:100%;padding:.5rem;box-sizing:border-box}
button{font:inherit;padding:.6rem 1.2rem;margin:.5rem .5rem 0 0;cursor:pointer}
.said{color:GrayText;font-weight:400}.wrong{border-left:.3rem solid #c00;padding-left:.8rem}
"""

_HASH: Final = base64.b64encode(hashlib.sha256(_CSS.encode()).digest()).decode()

_HEADERS: Final = {
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
    "x-robots-tag": "noindex",
}
"""A page loads nothing, runs no script, is not cached, and sends its forms only to its own origin."""

_MARKDOWN: Final = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")


def page(title: str, body: str, *, status: int = 200) -> Response:
    """A page; ``body`` is HTML."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
    return HTMLResponse(
        f'<!doctype html><html lang="en">{head}<title>{escape(title)}</title><style>{_CSS}</style>'
        f"<main>{body}</main></html>",
        status,
        _HEADERS,
    )


def in_html(markdown: str) -> str:
    """Markdown as HTML; HTML in it is shown as text, and images are links."""
    return str(_MARKDOWN.render(markdown))
