"""Writes objects and lists as JSON text, as which a column of a table holds them."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

_ENCODE: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False).encode


def json_text(value: Any) -> str:
    """Return ``value`` as JSON; numbers keep the digits with which they were written.

    Bytes become base64, times and durations ISO 8601, and NaN and infinity null.
    """
    try:
        return _ENCODE(value)  # several times as fast, for all that Python itself has in JSON
    except (TypeError, ValueError):
        return _written(value)


def _written(value: Any) -> str:
    match value:
        case Decimal():
            text = str(value) if value.is_finite() else "null"
        case float():
            text = repr(value) if math.isfinite(value) else "null"
        case Mapping():
            pairs = (f"{json.dumps(str(key), ensure_ascii=False)}: {_written(one)}" for key, one in value.items())
            text = f"{{{', '.join(pairs)}}}"
        case list() | tuple():
            text = f"[{', '.join(map(_written, value))}]"
        case bytes():
            text = f'"{base64.b64encode(value).decode()}"'
        case timedelta():
            text = f'"{iso_duration(value // timedelta(microseconds=1), 10**6)}"'
        case datetime() | date() | time():
            text = f'"{value.isoformat()}"'
        case UUID():
            text = f'"{value}"'
        case _:
            text = json.dumps(value, ensure_ascii=False)
    return text


def iso_duration(count: int, per_second: int) -> str:
    """Return ``count`` units, of which a second has ``per_second``, as ISO 8601: ``PT3600S``, ``-PT0.5S``."""
    seconds, rest = divmod(abs(count), per_second)
    digits = f".{rest:0{len(str(per_second)) - 1}d}".rstrip("0") if rest else ""
    return f"{'-' if count < 0 else ''}PT{seconds}{digits}S"
