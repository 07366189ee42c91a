"""Requests whose end two servers may see in different places: a second request hides in what follows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_CL: Final = "content-length: {length}\r\n"
_CHUNKED: Final = "transfer-encoding: chunked\r\n"

# What the headers say of the body's end (``{length}``: of all that follows), and what precedes the second request.
FORMS: Final[Mapping[str, tuple[str, str]]] = {
    "both": (_CL + _CHUNKED, "0\r\n\r\n"),
    "both, the other way round": (_CHUNKED + _CL, "0\r\n\r\n"),
    "both, behind a tab": (_CL + "transfer-encoding:\tchunked\r\n", "0\r\n\r\n"),
    "both, with a blank before the colon": (_CL + "transfer-encoding : chunked\r\n", "0\r\n\r\n"),
    "both, with a null after the name": (_CL + "transfer-encoding\0: chunked\r\n", "0\r\n\r\n"),
    "both, in a folded line": (_CL + "x: a\r\n transfer-encoding: chunked\r\n", "0\r\n\r\n"),
    "both, behind a lone line feed": (_CL + "x: a\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
    "both, behind a lone carriage return": (_CL + "x: a\rtransfer-encoding: chunked\r\n", "0\r\n\r\n"),
    "both, the encoding twice": (_CL + _CHUNKED + "transfer-encoding: identity\r\n", "0\r\n\r\n"),
    "both, with an encoding that nobody knows": (_CL + "transfer-encoding: xchunked\r\n", "0\r\n\r\n"),
    "both, with chunked not last": (_CL + "transfer-encoding: chunked, identity\r\n", "0\r\n\r\n"),
    "both, in quotes": (_CL + 'transfer-encoding: "chunked"\r\n', "0\r\n\r\n"),
    "an encoding that nobody knows": ("transfer-encoding: xchunked\r\n", "0\r\n\r\n"),
    "identity": ("transfer-encoding: identity\r\n", "0\r\n\r\n"),
    "two lengths, the first none": ("content-length: 0\r\n" + _CL, ""),
    "two lengths, the last none": (_CL + "content-length: 0\r\n", ""),
    "two lengths in one": ("content-length: 0, {length}\r\n", ""),
    "a length with a sign": ("content-length: +0\r\n", ""),
    "a length below zero": ("content-length: -1\r\n", ""),
    "a length in hexadecimal": ("content-length: 0x0\r\n", ""),
    "a length with an underscore": ("content-length: 0_0\r\n", ""),
    "a length in other digits": ("content-length: \u00b2\r\n", ""),
    "a length that no number holds": ("content-length: 18446744073709551616\r\n", ""),
    "an empty length": ("content-length:\r\n", ""),
    "a chunk's length with a sign": (_CHUNKED, "+0\r\n\r\n"),
    "a chunk's length below zero": (_CHUNKED, "-0\r\n\r\n"),
    "a chunk's length with a prefix": (_CHUNKED, "0x0\r\n\r\n"),
    "a chunk's length that no number holds": (_CHUNKED, "fffffffffffffffff1\r\n\r\n"),
    "a chunk's length behind a blank": (_CHUNKED, " 0\r\n\r\n"),
    "a chunk that goes on behind its length": (_CHUNKED, "1\r\nab\r\n0\r\n\r\n"),
}


def hidden(form: str, *, first: str, second: str) -> bytes:
    """The request with the head ``first`` (its lines, each with its end) and, in its body or behind it, ``second``."""
    told, before = FORMS[form]
    rest = before + second
    return (first + told.format(length=len(rest)) + "\r\n" + rest).encode("latin-1")
