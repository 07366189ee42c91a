"""JSON from outside: parsed once, with limits, into a value that is safe to carry on."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue
from pydantic_core import from_json, to_json

from events.errors import RejectedEvent

# Prefect's server replaces a mapping that carries this key by a variable's value or a rendered template.
HYDRATION_KEY: Final = "__prefect_kind"
_HYDRATION_BYTES: Final = HYDRATION_KEY.encode()
_NUL_ESCAPE: Final = b"\\u0000"
# Text decoded from UTF-8 holds a lone surrogate, or a key that its bytes do not show, only through such an escape.
_SURROGATE_ESCAPE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_LETTER_ESCAPE: Final = re.compile(rb"\\u00[567]")

# What only the careful decoder can judge: a colon that does not show, and numbers that 64 bits or a float may not hold.
_COLON_ESCAPE: Final = b"\\u003"
_SHAPE: Final = bytes(48 if byte in b"0123456789" else 101 if byte in b"eE" else 32 for byte in range(256))
_LONG_NUMBER: Final = b"0" * 19
_LARGE_EXPONENT: Final = b"0e000"
_AS_BRACKETS: Final = bytes.maketrans(b"{}", b"[]")
_NO_STRUCTURE: Final = bytes(byte for byte in range(256) if byte not in b'"[]{}')
_TEXT: Final = re.compile(rb'"[^"]*"?')


@dataclass(frozen=True, slots=True)
class Limits:
    """What one message from outside may weigh: ``max_bytes`` as received, ``max_depth`` nested containers."""

    max_bytes: int = 1024 * 1024
    max_depth: int = 64


def parse_json(raw: bytes, limits: Limits) -> JsonValue:
    """Untrusted bytes as a JSON value that is safe to carry on.

    Size and depth are checked before parsing. Raises `RejectedEvent` with one of the codes ``too-large``, ``too-deep``,
    ``not-json``, ``hydration`` or ``nul``.
    """
    if len(raw) > limits.max_bytes:
        msg = f"the message has {len(raw)} bytes; at most {limits.max_bytes} are accepted (limits.max_event_bytes)"
        raise RejectedEvent("too-large", msg)
    _check_depth(raw, limits.max_depth)
    escaped = b"\\u" in raw
    try:
        value = _decode(raw)
        if escaped and _SURROGATE_ESCAPE.search(raw):
            to_json(value)  # lone surrogates cannot be carried on
    except RejectedEvent:
        raise
    except (ValueError, RecursionError) as error:
        raise RejectedEvent("not-json", f"the message is not JSON: {error}") from error
    if _HYDRATION_BYTES in raw or (escaped and _LETTER_ESCAPE.search(raw)):
        refuse_hydration(value)
    if _NUL_ESCAPE in raw and has_nul(value):
        raise RejectedEvent("nul", "a text holds the character NUL (\\u0000), which PostgreSQL cannot store")
    return value


def refuse_hydration(value: JsonValue) -> None:
    """Raise `RejectedEvent` where Prefect's hydration key stands anywhere in ``value``.

    The server would put a workspace variable or a rendered template in its place, chosen by whoever sent the message.
    """
    if any(isinstance(part, dict) and HYDRATION_KEY in part for part in parts_of(value)):
        msg = f"the key {HYDRATION_KEY!r} is refused: Prefect would replace it by server-side values"
        raise RejectedEvent("hydration", msg)


def parts_of(value: JsonValue) -> Iterator[JsonValue]:
    """The value, and every key, value and element in it at any depth."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        yield part
        if isinstance(part, dict):
            waiting.extend(part)
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def has_nul(value: JsonValue) -> bool:
    """Whether a text in the value holds the character NUL: Prefect on PostgreSQL fails on it, every time."""
    return any(isinstance(part, str) and "\0" in part for part in parts_of(value))


def _check_depth(raw: bytes, max_depth: int) -> None:
    """Raise `RejectedEvent` for JSON that is nested too deeply, before it is parsed: parsers recurse.

    Removing pairs of brackets level by level is faster than looking at each character, and right for almost all
    messages.
    """
    if raw.count(b"{") + raw.count(b"[") <= max_depth:
        return
    brackets = left = _brackets(raw)
    for _ in range(max_depth + 1):
        if not left:
            return
        left = left.replace(b"[]", b"")  # takes the innermost level away
    depth = 0
    for bracket in brackets:  # it is too deep, or no JSON
        depth += 1 if bracket in b"[" else -1
        if depth > max_depth:
            msg = f"the message nests deeper than {max_depth} levels (limits.max_depth)"
            raise RejectedEvent("too-deep", msg)


def _brackets(raw: bytes) -> bytes:
    """Return the brackets of a JSON text that stand outside of its strings, in their order; braces as brackets."""
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Two quotes with nothing between them can go, wherever they stand: what is inside a string stays inside.
    marks = raw.translate(_AS_BRACKETS, _NO_STRUCTURE).replace(b'""', b"")
    return _TEXT.sub(b"", marks) if b'"' in marks else marks


def _refuse_constant(name: str) -> None:
    raise RejectedEvent("not-json", f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise RejectedEvent("not-json", f"the number {text[:40]} is too large for a float")
    return number


def _sixty_four_bits(text: str) -> int:
    # Longer integers do not survive the JSON libraries that the value passes through on its way.
    if len(text) > 20 or not -(2**63) <= int(text) < 2**64:  # noqa: PLR2004 - the bounds of 64 bits
        raise RejectedEvent("not-json", f"the integer {text[:40]} does not fit into 64 bits")
    return int(text)


def _unique(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RejectedEvent("not-json", f"the key {twice[:80]!r} stands twice in one object")
    return found


# Built once: making a decoder costs as much as a small message's work.
_decode_carefully: Final = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_finite, parse_int=_sixty_four_bits, object_pairs_hook=_unique
).decode


def _decode(raw: bytes) -> JsonValue:
    """The JSON text's value, by a fast decoder wherever that one could only find the same as the careful one."""
    shape = raw.translate(_SHAPE, b"+-")
    if _COLON_ESCAPE not in raw and _LONG_NUMBER not in shape and _LARGE_EXPONENT not in shape:
        try:
            value: JsonValue = from_json(raw, allow_inf_nan=False)
        except ValueError:
            pass  # the careful decoder says what is wrong
        else:
            # Of a key that stands twice in one object, one is gone, and with it a colon.
            if to_json(value).count(b":") == raw.count(b":"):
                return value
    carefully: JsonValue = _decode_carefully(raw.decode("utf-8"))
    return carefully
