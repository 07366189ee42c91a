"""The gate in front of RQ's jobs: decides from a stored job's bytes whether it may run.

Anybody who can write to Redis can put a job there, so nothing in a job is trusted before `refusal` has read it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Final

EXECUTE_RUN: Final = "services.jobs.execute_run"
APPLY_SIGNAL: Final = "services.jobs.apply_signal"
ALLOWED: Final = frozenset({EXECUTE_RUN, APPLY_SIGNAL})

MAX_PAYLOAD_BYTES: Final = 128 * 1024 * 1024
"""Largest decompressed payload; decompression of a larger one stops there, and the job is refused."""

_PARTS: Final = 4
# Fields that make RQ import or call something besides the job's function, or enqueue further jobs.
_FORBIDDEN: Final = {
    b"success_callback_name": "a success callback",
    b"failure_callback_name": "a failure callback",
    b"stopped_callback_name": "a stopped callback",
    b"webhooks": "webhooks",
    b"dependency_id": "dependencies",
    b"dependency_ids": "dependencies",
    b"repeats_left": "repeats",
    b"repeat_intervals": "repeats",
    b"rate_limit_key": "a rate limit",
    b"group_id": "a group",
}


def refusal(raw: Mapping[bytes, bytes]) -> str | None:
    """Why the stored job must not run, or None; reads its bytes as JSON only, and imports and unpickles nothing."""
    for field, what in _FORBIDDEN.items():
        if raw.get(field):
            return f"the job asks for {what}, which jobs of Sluice never have"
    payload = _unpacked(raw.get(b"data", b""))
    if payload is None or _unpacked(raw.get(b"exc_info", b"")) is None:
        return f"the job unpacks to more than {MAX_PAYLOAD_BYTES} bytes"
    try:
        parts = json.loads(payload)
    except (ValueError, RecursionError):
        kind = "a pickle" if payload[:1] == b"\x80" else "not JSON"
        return f"the job's payload is {kind}; jobs of Sluice are JSON"
    return _call_refusal(parts)


def beginning(packed: bytes, size: int) -> bytes:
    """Return the first bytes of a stored job's payload, decompressing no more than that."""
    try:
        return zlib.decompressobj().decompress(packed, size)
    except zlib.error:
        return packed[:size]


def _call_refusal(parts: object) -> str | None:
    """Return why a job's payload is not a call of Sluice's; None if it is."""
    if not isinstance(parts, list) or len(parts) != _PARTS:
        return "the job's payload is not a list of function, instance, arguments and keyword arguments"
    function, instance, arguments, keywords = parts
    if not isinstance(function, str) or function not in ALLOWED or instance is not None:
        return f"the job asks for {str(function)[:200]!r}, which is not a job of Sluice"
    if not isinstance(arguments, list) or not isinstance(keywords, dict):
        return "the job's arguments are not a list, or its keyword arguments not an object"
    return None


def _unpacked(packed: bytes) -> bytes | None:
    unpacker = zlib.decompressobj()
    try:
        payload = unpacker.decompress(packed, MAX_PAYLOAD_BYTES)
    except zlib.error:
        return packed
    return None if unpacker.unconsumed_tail else payload
