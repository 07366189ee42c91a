"""Verifies signatures of webhook deliveries, on the raw body and in constant time."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from typing import Final

from config.sources import HookSource

_STANDARD_PREFIX: Final = "whsec_"


class BadDelivery(Exception):
    """The delivery is not authentic; the message says what is missing or wrong, and reveals nothing of the secret."""


def usable_secret(source: HookSource, secret: str) -> bytes:
    """Return the bytes that deliveries are signed with; raises `ValueError`."""
    if not secret:
        raise ValueError("it is not set, or empty")
    if source.verify != "standard-webhooks":
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_STANDARD_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError(f"a secret of Standard Webhooks is {_STANDARD_PREFIX!r} and base64: {error}") from error


def verify(source: HookSource, secrets: Sequence[bytes], headers: Mapping[str, str], body: bytes) -> str | None:
    """Raise `BadDelivery` unless the delivery was signed with one of the secrets, and recently if a time is signed.

    ``headers`` must ignore letter case. Returns the signature if it signs no time: then a copied delivery passes again,
    and the caller has to recognise it.
    """
    match source.verify:
        case "standard-webhooks":
            _standard(source, secrets, headers, body)
            return None
        case "github":
            given = _header(headers, "X-Hub-Signature-256")
            if not any(
                _same(given, f"sha256={hmac.new(secret, body, hashlib.sha256).hexdigest()}") for secret in secrets
            ):
                raise BadDelivery("X-Hub-Signature-256 is not the body's signature with the secret of this hook")
            return given
        case "shared-secret":
            given = _header(headers, source.secret_header)
            if not any(_same(given, secret.decode()) for secret in secrets):
                raise BadDelivery(f"{source.secret_header} is not the secret of this hook")
            return None


def _standard(source: HookSource, secrets: Sequence[bytes], headers: Mapping[str, str], body: bytes) -> None:
    """Verify by https://www.standardwebhooks.com: ``v1,`` and the base64 of HMAC-SHA256 of id, time and body."""
    id_, sent = _header(headers, "webhook-id"), _header(headers, "webhook-timestamp")
    given = [one for one in _header(headers, "webhook-signature").split(" ") if one.startswith("v1,")]
    if not (sent.isascii() and sent.isdecimal() and len(sent) < 16):  # noqa: PLR2004 - seconds of this era
        raise BadDelivery("webhook-timestamp is not a number of seconds")
    signed = b"%s.%s.%s" % (id_.encode(), sent.encode(), body)
    good = ["v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode() for secret in secrets]
    if not any(_same(one, other) for one in given for other in good):
        raise BadDelivery("webhook-signature is not the signature of id, time and body with the secret of this hook")
    age = time.time() - int(sent)
    if abs(age) > source.replay_seconds:
        said = "old" if age > 0 else "in the future"
        raise BadDelivery(f"webhook-timestamp is {abs(age):.0f} s {said}; at most {source.replay_seconds:g} are taken")


def _header(headers: Mapping[str, str], name: str) -> str:
    found = headers.get(name)
    if not found:
        raise BadDelivery(f"the header {name} is missing")
    return found


def _same(given: str, good: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), good.encode("utf-8", "replace"))
