"""What stays of personal data when its columns are masked."""

from __future__ import annotations

import hashlib
import hmac

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from sluice.loading.contracts.contract import Mask
from sluice.loading.errors import RefusedFile
from sluice.loading.masking import Masking, masking_secret

SECRET = SecretStr("a secret of the tests")


def masked(value: str | None, **mask: object) -> str | None:
    masking = Masking({"x": Mask.model_validate(mask)}, SECRET)
    found: list[str | None] = masking.column("x", pa.array([value], pa.string())).to_pylist()
    return found[0]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("jane.doe@example.org", "***@example.org"),
        ("j@bücher.example", "***@bücher.example"),
        ("Jane Doe <jane@example.org>", "***"),
        ("jane@example.org, joe@example.org", "***"),
        ("jane@jane@example.org", "***"),
        ("jane at example.org", "***"),
        ("@example.org", "***"),
        ("jane@", "***"),
        ("jane@example.org\njoe", "***"),
        ("", "***"),
        (None, None),
    ],
)
def test_an_email_address_keeps_its_domain(value: str | None, shown: str | None) -> None:
    assert masked(value, kind="email") == shown


@pytest.mark.parametrize(
    ("value", "region", "shown"),
    [
        ("+49 170 1234567", None, "+49 *** 67"),
        ("+1 (650) 253-0000", None, "+1 *** 00"),
        ("+420.608.123.456", None, "+420 *** 56"),
        ("0049 170 1234567", "DE", "+49 *** 67"),
        ("0170/1234567", "DE", "+49 *** 67"),
        ("(650) 253-0000 ext. 12", "US", "+1 *** 00"),
        ("06 12 34 56 78", "FR", "+33 *** 78"),
        ("0170/1234567", None, "***"),
        ("+999 170 1234567", None, "***"),
        ("110", "DE", "***"),
        ("+1 2", None, "***"),
        ("call Jane", "DE", "***"),
        (None, "DE", None),
    ],
)
def test_a_telephone_number_keeps_its_country_and_two_digits(
    value: str | None, region: str | None, shown: str | None
) -> None:
    assert masked(value, kind="phone", region=region) == shown


@pytest.mark.parametrize(
    ("value", "keep", "shown"),
    [
        ("DE02120300000000202051", 4, "***2051"),
        ("12345678", 4, "***5678"),
        ("1234567", 4, "***"),
        ("ab", 1, "***b"),
        ("né😀é", 2, "***😀é"),
        ("anything", 0, "***"),
        (None, 4, None),
    ],
)
def test_the_last_characters_stay_and_never_more_than_half(value: str | None, keep: int, shown: str | None) -> None:
    assert masked(value, kind="partial", keep=keep) == shown


@given(st.text(min_size=1))
def test_a_hash_is_hmac_sha256_of_the_text(value: str) -> None:
    expected = hmac.new(SECRET.get_secret_value().encode(), value.encode(errors="replace"), hashlib.sha256).hexdigest()
    assert masked(value.encode(errors="replace").decode(), kind="hmac") == expected


@given(st.text(), st.sampled_from(["email", "phone", "partial"]))
def test_no_value_comes_out_as_it_went_in(value: str, kind: str) -> None:
    text = value.encode(errors="replace").decode()
    assert masked(text, kind=kind) != text or text == "***"


def test_masked_columns_of_any_type_become_text_and_others_stay() -> None:
    masks = {"n": Mask(kind="partial", keep=1), "gone": Mask(kind="drop"), "day": Mask(kind="hmac")}
    masking = Masking(masks, SECRET)
    assert masking.column("n", pa.array([1234, None])).to_pylist() == ["***4", None]
    assert masking.column("day", pa.array([1, 2], pa.date32())).type == pa.string()
    assert masking.column("gone", pa.array(["x"])).to_pylist() == ["***"]
    assert masking.column("free", pa.array([1, 2])).to_pylist() == [1, 2]


@pytest.mark.parametrize(("secret", "what"), [(None, "there is no secret"), ("short", "less than 16 bytes")])
def test_a_hash_needs_a_secret_that_cannot_be_guessed(secret: str | None, what: str) -> None:
    with pytest.raises(RefusedFile, match=what) as refused:
        Masking({"x": Mask(kind="hmac")}, SecretStr(secret) if secret else None)
    assert secret is None or secret not in str(refused.value)
    Masking({"x": Mask(kind="email")}, None)


def test_the_secret_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLUICE_MASKING_SECRET", raising=False)
    assert masking_secret() is None
    monkeypatch.setenv("SLUICE_MASKING_SECRET", "a secret of the tests")
    assert masking_secret() == SECRET
