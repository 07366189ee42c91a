"""What a waiting run and the resumer agree on."""

from __future__ import annotations

import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.errors import RejectedEvent
from events.signal import signal_from_mapping
from sluice.protocol import (
    GO_ON,
    addressed,
    belongs_to,
    checked_key,
    entry_of,
    form,
    inputs_prefix,
    keys_of,
    keyset,
    opened,
    pause_key,
    response_key,
    verdict_key,
    wait_key,
    with_awaits,
)

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)
ALIKE = st.text(st.sampled_from("aA1- \u00e9/"), min_size=1, max_size=6)
"""Names that are easily taken for each other."""

ALLOWED = re.compile(r"[a-z0-9-]+")
"""What Prefect takes as the key of a run input."""

ENTRIES = st.integers(1, 50)


@given(NAMES, ENTRIES, ENTRIES)
def test_every_name_gives_keys_that_prefect_takes(name: str, occurrence: int, entry: int) -> None:
    pause = pause_key(name, occurrence, entry)
    assert all(ALLOWED.fullmatch(key) for key in (pause, response_key(pause), verdict_key(pause)))
    assert len(pause) < 150


@given(st.one_of(NAMES, ALIKE), st.one_of(NAMES, ALIKE), ENTRIES, ENTRIES, ENTRIES)
def test_no_waits_keys_begin_with_anothers_prefix(one: str, other: str, first: int, second: int, entry: int) -> None:
    response = response_key(pause_key(other, second, entry))
    same = (one, first) == (other, second)
    assert response.startswith(inputs_prefix(wait_key(one, first))) is same
    assert belongs_to(response, wait_key(one, first)) is same
    assert entry_of(response) == entry


@pytest.mark.parametrize(
    "key", ["A-1", "a-1", "PO-7", " a", "a ", "order 1042", "a/b", "M\u00fcller", "\u8ba2\u5355-7",
     "\U0001f469\u200d\U0001f4bb", "x" * 200],
)  # fmt: skip
def test_keys_are_the_users_texts(key: str) -> None:
    assert checked_key(key) == key


def test_keys_that_look_the_same_are_the_same() -> None:
    assert checked_key("Mu\u0308ller") == checked_key("M\u00fcller")
    assert keys_of(keyset("p", keys=["Mu\u0308ller"])) == ("M\u00fcller",)


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("", "the key is empty"),
        ("a\nb", r"the key 'a\\nb' contains the control character U\+000A"),
        ("\x85", r"U\+0085"),
        ("\ud800", r"U\+D800"),
        ("x" * 201, "has 201 characters; at most 200"),
    ],
)
def test_what_is_no_key_is_refused_with_a_sentence(key: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        checked_key(key)
    with pytest.raises(RejectedEvent, match=sentence):
        signal_from_mapping({"key": key})


def test_a_key_that_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="the key must be text, not int"):
        checked_key(1042)


def test_a_wait_without_fields_has_one_that_prefects_form_sends() -> None:
    fields = form({"type": "object", "properties": {}}, "p")["properties"]
    assert {name: field["default"] for name, field in fields.items()} == {GO_ON: True}
    assert opened({GO_ON: True}) == ({}, {})
    assert opened(addressed({GO_ON: True}, pause="p", signal="s", key=None))[0] == {GO_ON: True}


def test_a_truth_value_without_a_default_is_shown_as_a_choice_of_two() -> None:
    fields = {name: {"type": "boolean"} for name in ("needed", "not needed")} | {"given": {"type": "boolean"}}
    shown = form({"type": "object", "properties": fields, "required": ["needed"]}, "p")["properties"]
    assert shown == {**fields, "needed": {"enum": [True, False]}}


def test_a_plain_name_stays_readable() -> None:
    assert pause_key("order-1042", 2) == "sluice-wait-2-order-1042"


@given(st.lists(NAMES.map(lambda text: unicodedata.normalize("NFC", text)), unique=True))
def test_the_keys_come_back_out_of_the_keyset(keys: list[str]) -> None:
    assert keys_of(keyset("p", keys=keys)) == tuple(keys)


def test_tags_of_an_earlier_wait_are_replaced_and_the_runs_own_are_kept() -> None:
    tags = ["sluice", "mine", "source:s", "awaits:old", "event:1", "sluice-project:p", "rule:r"]
    shown = ["awaits:a", "awaits:b", "rule:r", "event:1", "source:s", "mine", "sluice", "sluice-project:p"]
    assert with_awaits(tags, ["a", "b"]) == shown
    assert with_awaits(["mine", "awaits:old"], []) == ["mine"]


def test_the_library_is_imported_without_prefect_redis_or_the_application(checkout: Path) -> None:
    code = """
import sys, sluice

def heavy():
    return {"prefect", "redis", "rq", "services", "events", "config", "flows"} & set(sys.modules)

assert not heavy(), heavy()
sluice.send_signal
assert not heavy(), heavy()
sluice.wait_for_signal
assert not heavy() - {"prefect", "redis"}, heavy()
"""
    subprocess.run([sys.executable, "-c", code], cwd=checkout, check=True)
