"""What a JSON value holds at any depth; how deep a message nests is found without parsing it."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.errors import RejectedEvent
from events.untrusted_json import HYDRATION_KEY, Limits, has_nul, parse_json, parts_of, refuse_hydration

PIECES = st.sampled_from(["[", "]", "{", "}", '"', "\\", '\\"', "\\\\", ",", ":", "a", "0", '"a":', '""', "\n"])
VALUES = st.recursive(
    st.none() | st.integers(0, 9) | st.text('[]{}"\\a', max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('[]{}"\\b', max_size=3), inner, max_size=3),
    max_leaves=30,
)


def _depth(raw: bytes) -> int:
    """The deepest level, character by character."""
    depth = deepest = 0
    for mark in re.findall(rb'"(?:[^"\\]|\\.)*"?|[\[\]{}]', raw, re.DOTALL):
        depth += 1 if mark in (b"[", b"{") else -1 if mark in (b"]", b"}") else 0
        deepest = max(deepest, depth)
    return deepest


def _is_too_deep(raw: bytes, limit: int) -> bool:
    try:
        parse_json(raw, Limits(max_depth=limit))
    except RejectedEvent as error:
        return error.code == "too-deep"
    return False


@given(VALUES, st.integers(1, 6))
def test_what_is_json_is_too_deep_exactly_beyond_the_limit(value: object, limit: int) -> None:
    raw = json.dumps(value, ensure_ascii=False).encode()
    assert _is_too_deep(raw, limit) == (_depth(raw) > limit)


@given(st.lists(PIECES, max_size=40).map("".join), st.integers(1, 6))
def test_what_is_too_deep_before_it_is_no_json_is_refused_unparsed(text: str, limit: int) -> None:
    # An escape outside of a string is no JSON; where it stands may decide what counts as a string.
    if "\\" not in re.sub(r'"(?:[^"\\]|\\.)*"', "", text, flags=re.DOTALL):
        assert _is_too_deep(text.encode(), limit) == (_depth(text.encode()) > limit)


@pytest.mark.parametrize("open_", ["[", '{"a":', '[{"a":'])
def test_a_text_that_opens_without_an_end_never_comes_to_the_parser(open_: str) -> None:
    assert _is_too_deep(open_.encode() * 100_000, 64)


def test_brackets_of_one_level_do_not_add_up() -> None:
    assert not _is_too_deep(b"[" + b",".join([b"{}", b"[]"] * 500) + b"]", 2)


def test_every_part_of_a_value_is_walked() -> None:
    value = {"a": [1, {"b": None}], "c": "d"}
    assert sorted(map(repr, parts_of(value))) == sorted(
        map(repr, [value, "a", [1, {"b": None}], 1, {"b": None}, "b", None, "c", "d"])
    )


@pytest.mark.parametrize("value", [{HYDRATION_KEY: 1}, [{"a": {HYDRATION_KEY: "jinja"}}]])
def test_the_key_of_prefect_is_refused_at_any_depth(value: object) -> None:
    with pytest.raises(RejectedEvent) as refused:
        refuse_hydration(value)
    assert refused.value.code == "hydration"
    refuse_hydration([HYDRATION_KEY])  # a text is no key


@pytest.mark.parametrize(("value", "nul"), [("a\0", True), ({"\0": 1}, True), ([{"a": ["\0"]}], True), (["0"], False)])
def test_the_character_nul_is_found_in_keys_and_values(value: object, nul: bool) -> None:
    assert has_nul(value) is nul


@pytest.mark.parametrize("text", ["\\", '\\"', '"', "[", '\\\\"[', '["', "\\]"])
def test_a_string_hides_its_own_brackets_and_no_others(text: str) -> None:
    nested: object = 1
    for _ in range(5):
        nested = [nested]
    raw = json.dumps([text, nested, text]).encode()
    assert not _is_too_deep(raw, 6)
    assert _is_too_deep(raw, 5)
    assert not _is_too_deep(json.dumps([text + "[" * 9, text]).encode(), 1)
