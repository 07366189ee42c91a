"""Masks personal data before it goes anywhere: into a table, a report, a message or a file of bad rows."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

import phonenumbers
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import SecretStr

from sluice.loading.contracts.contract import Contract, Mask
from sluice.loading.errors import RefusedFile

SECRET_VARIABLE: Final = "SLUICE_MASKING_SECRET"  # noqa: S105 - its name
"""The environment variable with the secret of ``hmac``, used if the flow passes none."""

HIDDEN: Final = "***"
"""Stands for a value, or for its hidden part."""

_LEAST_SECRET_BYTES: Final = 16
_LEAST_DIGITS: Final = 7
_EMAIL: Final = r"^[^@\s<>\"]+@[\p{L}\p{N}](?:[\p{L}\p{N}.-]*[\p{L}\p{N}])?$"
_PLAIN_EMAIL: Final = r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?$"
"""The form of most addresses, which is recognized in half of the time of a full check."""
_BEFORE_AT: Final = r"^[^@]*"
_CODES: Final = "|".join(sorted(map(str, phonenumbers.COUNTRY_CODE_TO_REGION_CODE)))
_CODE: Final = rf"^\+(?P<code>{_CODES})"
_INTERNATIONAL: Final = rf"^\+(?:{_CODES})[0-9]{{7,14}}$"
"""A number without the signs between its digits. No country's code is the beginning of another one."""
_BETWEEN_DIGITS: Final = r"[().\-/\x{00a0}]"
"""Signs that may be between digits, besides spaces."""
_BLOCK_BYTES: Final = 64
"""Size of a block of SHA-256, in bytes."""


class Masking:
    """Masks columns by their names.

    ``email`` keeps the domain, ``phone`` the country and the last two digits, ``partial`` the last characters (at most
    half of the value). ``hmac`` is HMAC-SHA256 in 64 hexadecimal digits, equal for equal text; ``drop`` leaves the
    column out. A value that is not an e-mail address or telephone number is hidden as a whole.
    """

    def __init__(self, masks: Mapping[str, Mask], secret: SecretStr | None = None) -> None:
        """Raises `RefusedFile` if ``hmac`` is used without a secret, or with one that is too short."""
        hashed = [name for name, mask in masks.items() if mask.kind == "hmac"]
        self._masks = dict(masks)
        self._change = {name: _change(mask, _key(secret, hashed)) for name, mask in masks.items()}

    def __bool__(self) -> bool:
        return bool(self._masks)

    def column(self, name: str, values: pa.Array) -> pa.Array:
        """Return the values of a column after masking; unchanged if the column is not masked."""
        change = self._change.get(name)
        if change is None:
            return values
        found = pc.dictionary_encode(values if pa.types.is_string(values.type) else _written(values))
        return change(found.dictionary).take(found.indices)  # every different value is changed once


def masking_of(contract: Contract | None, secret: SecretStr | None = None) -> Masking:
    """Return the masking that a contract asks for; the secret is by default that of the environment.

    Raises `RefusedFile` like `Masking`.
    """
    return Masking(masks_of(contract), secret or masking_secret())


def masks_of(contract: Contract | None) -> dict[str, Mask]:
    """Return the masks of a contract by the names of its fields."""
    fields = contract.fields if contract is not None else ()
    return {one.name: one.mask for one in fields if one.mask is not None}


def masking_secret() -> SecretStr | None:
    """Return the secret in the environment; None if it is not set."""
    value = os.environ.get(SECRET_VARIABLE)
    return SecretStr(value) if value else None


def _key(secret: SecretStr | None, hashed: Iterable[str]) -> bytes:
    key = secret.get_secret_value().encode() if secret else b""
    for name in hashed:
        if len(key) < _LEAST_SECRET_BYTES:
            what = f"the secret has less than {_LEAST_SECRET_BYTES} bytes" if key else "there is no secret"
            raise RefusedFile(
                f"the column {name!r} is to be masked with `hmac`, and {what}: set {SECRET_VARIABLE}, or name a Secret "
                "block of Prefect in the flow's parameter `masking_secret`"
            )
    return key


def _change(mask: Mask, key: bytes) -> Callable[[pa.StringArray], pa.StringArray]:
    match mask.kind:
        case "email":
            return _email
        case "phone":
            return partial(_phone, mask.region)
        case "hmac":
            return partial(_each, _Hashed(key))
        case "partial":
            return partial(_last, mask.keep)
        case "drop":
            return _hidden


def _hidden(values: pa.StringArray) -> pa.StringArray:
    return pc.if_else(pc.is_valid(values), HIDDEN, pa.scalar(None, pa.string()))


def _email(values: pa.StringArray) -> pa.StringArray:
    masked = pc.replace_substring_regex(values, _BEFORE_AT, HIDDEN)
    are_addresses = pc.match_substring_regex(values, _PLAIN_EMAIL)
    if not pc.all(are_addresses).as_py():
        are_addresses = pc.match_substring_regex(values, _EMAIL)
    return pc.if_else(are_addresses, masked, _hidden(values))


def _phone(region: str | None, values: pa.StringArray) -> pa.StringArray:
    digits = pc.replace_substring(values, " ", "")
    if pc.any(pc.match_substring_regex(digits, _BETWEEN_DIGITS)).as_py():
        digits = pc.replace_substring_regex(digits, _BETWEEN_DIGITS, "")
    international = pc.match_substring_regex(digits, _INTERNATIONAL)
    code = pc.struct_field(pc.extract_regex(digits, _CODE), "code")
    masked = pc.binary_join_element_wise("+", code, f" {HIDDEN} ", pc.utf8_slice_codeunits(digits, -2), "")
    others = pc.if_else(international, pa.scalar(None, pa.string()), values)
    return pc.if_else(international, masked, _each(partial(_national, region), others))


def _national(region: str | None, text: str) -> str:
    """Return a masked number that is written by the rules of its country, without the country's code."""
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return HIDDEN
    digits = str(number.national_number)
    if len(digits) < _LEAST_DIGITS or not phonenumbers.is_possible_number(number):
        return HIDDEN
    return f"+{number.country_code} {HIDDEN} {digits[-2:]}"


class _Hashed:
    """HMAC-SHA256 (RFC 2104) of texts in UTF-8; Python's `hmac` takes more than twice the time for short values."""

    def __init__(self, key: bytes) -> None:
        block = (hashlib.sha256(key).digest() if len(key) > _BLOCK_BYTES else key).ljust(_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def __call__(self, text: str) -> str:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(text.encode())
        outer.update(inner.digest())
        return outer.hexdigest()


def _last(keep: int, values: pa.StringArray) -> pa.StringArray:
    if not keep:
        return _hidden(values)
    shown = pc.binary_join_element_wise(HIDDEN, pc.utf8_slice_codeunits(values, -keep), "")
    return pc.if_else(pc.greater_equal(pc.utf8_length(values), 2 * keep), shown, _hidden(values))


def _each(change: Callable[[str], str], values: pa.StringArray) -> pa.StringArray:
    return pa.array([None if one is None else change(one) for one in values.to_pylist()], pa.string())


def _written(values: pa.Array) -> pa.StringArray:
    if pa.types.is_binary(values.type):
        return pa.array([None if one is None else one.hex() for one in values.to_pylist()], pa.string())
    return values.cast(pa.string())
