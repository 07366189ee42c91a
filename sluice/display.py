"""Escapes characters in text from outside that are invisible or change how other text is shown.

Escaped are control characters (C0, DEL, C1), bidirectional marks, zero-width and other invisible characters, line and
paragraph separators, and lone surrogates. Everything else stays as it is, also the joiner between two emoji and a
variation selector after an emoji or an ideograph. A backslash stays as it is, so an escape written by somebody and one
made here look alike; where that matters, read the JSON output, which is lossless.
"""

from __future__ import annotations

import re
from typing import Final

_EMOJI: Final = (
    "\\u00a9\\u00ae\\u203c\\u2049\\u2122\\u2139\\u2190-\\u21ff\\u2300-\\u23ff\\u24c2\\u25a0-\\u27bf\\u2900-\\u297f"
    "\\u2b00-\\u2bff\\u3030\\u303d\\u3297\\u3299\\U0001f000-\\U0001faff"
)
_IDEOGRAPHS: Final = "\\u3400-\\u9fff\\uf900-\\ufaff\\U00020000-\\U0003ffff"

_ALWAYS: Final = (
    # Control characters, the soft hyphen, and the separators that end a line.
    "\\x00-\\x1f\\x7f-\\x9f\\xad\\u2028\\u2029"
    # Bidirectional marks, embeddings, overrides and isolates; the deprecated ones that follow them.
    "\\u061c\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u206f"
    # Without width: spaces, joiners, invisible operators, the byte order mark, fillers, annotations, tags.
    "\\u034f\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b\\u200c\\u2060-\\u2065\\u3164\\ufeff\\uffa0\\ufff0-\\ufffb"
    "\\U00013430-\\U0001343f\\U0001bca0-\\U0001bca3\\U0001d173-\\U0001d17a\\U000e0000-\\U000e00ff\\U000e01f0-\\U000e0fff"
    # Lone surrogates, which no terminal accepts.
    "\\ud800-\\udfff"
)

_HIDDEN: Final = re.compile(
    f"[{_ALWAYS}]"
    # The joiner, unless it joins two emoji.
    f"|\u200d(?![{_EMOJI}])|(?<![{_EMOJI}])(?<![{_EMOJI}]\ufe0f)\u200d"
    # A variation selector, unless there is something to vary before it.
    f"|(?<![{_EMOJI}{_IDEOGRAPHS}0-9#*])[\ufe0e\ufe0f]|(?<![{_IDEOGRAPHS}])[\ufe00-\ufe0d\U000e0100-\U000e01ef]"
)
_MARKDOWN: Final = re.compile(r"([\\`*_{}\[\]<>()#+!|~&])")
_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: str, limit: int | None = None, *, lines: bool = False) -> str:
    r"""Return ``text`` with an escape (``\x1b``, ``\u202e``) for each character that must not be shown.

    Line feeds and tabs are kept if ``lines`` is true, and escaped otherwise. The result has at most ``limit``
    characters, the last of them an ellipsis if the text was cut.
    """
    if limit is not None and len(text) > limit:
        text = text[: limit + 1]
    if not (text.isascii() and text.isprintable()):
        text = _HIDDEN.sub(_kept_lines if lines else _escape, text)
    if limit is not None and len(text) > limit:
        text = text[: limit - 1].rstrip("\u200d") + "…"
    return text


def paragraph(text: str) -> str:
    """Return ``text`` of one or several lines for a terminal or a log: visible, with all lines but the first indented.

    So none of these can pass for a line that another program has written.
    """
    return visible(text, lines=True).replace("\n", "\n    ")


def in_json(document: str) -> str:
    """Return an equal JSON document with JSON's own escapes for the characters that must not be shown."""
    return _HIDDEN.sub(lambda found: found[0] if found[0] in "\n\r\t" else _json_escape(found[0]), document)


def in_markdown(text: object) -> str:
    """Return ``text`` for one line of a markdown document: visible, and without effect as markup or as a cell's end."""
    return _MARKDOWN.sub(r"\\\1", visible(str(text)))


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    code = ord(character)
    if code < 0x100:  # noqa: PLR2004 - what two digits hold
        return _SHORT.get(character) or f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"  # noqa: PLR2004 - what four digits hold


def _kept_lines(found: re.Match[str]) -> str:
    return found[0] if found[0] in "\n\t" else _escape(found)


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
