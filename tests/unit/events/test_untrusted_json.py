"""What a JSON value holds at any depth."""

from __future__ import annotations

import pytest

from events.errors import RejectedEvent
from events.untrusted_json import HYDRATION_KEY, has_nul, parts_of, refuse_hydration


def test_every_part_of_a_value_is_walked() -> None:
    value = {"a": [1, {"b": None}], "c": "d"}
    assert sorted(map(repr, parts_of(value))) == sorted(
        map(repr, [value, "a", [1, {"b": None}], 1, {"b": None}, "b", None, "c", "d"])
    )


@pytest.mark.parametrize("value", [{HYDRATION_KEY: 1}, [{"a": {HYDRATION_KEY: "jinja"}}]])
def test_the_key_of_prefect_is_refused_at_any_depth(value: object) -> None:
    with pytest.raises(RejectedEvent) as refused:
        refuse_hydration(value)  # type: ignore[arg-type]
    assert refused.value.code == "hydration"
    refuse_hydration([HYDRATION_KEY])  # a text is no key


@pytest.mark.parametrize(("value", "nul"), [("a\0", True), ({"\0": 1}, True), ([{"a": ["\0"]}], True), (["0"], False)])
def test_the_character_nul_is_found_in_keys_and_values(value: object, nul: bool) -> None:
    assert has_nul(value) is nul  # type: ignore[arg-type]
