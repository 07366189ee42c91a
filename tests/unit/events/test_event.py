from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue, ValidationError

from events.errors import RejectedEvent
from events.event import parse_event, stored_event
from events.untrusted_json import Limits, parse_json, refuse_hydration
from tests.unit.events.making import event, events, json_values

LIMITS = Limits()


def cloud_event(**attributes: Any) -> bytes:
    return json.dumps({"specversion": "1.0", "id": "1", "source": "s", "type": "t", **attributes}).encode()


def rejected(raw: bytes, **options: Any) -> RejectedEvent:
    with pytest.raises(RejectedEvent) as caught:
        parse_event(raw, limits=options.pop("limits", LIMITS), **options)
    return caught.value


class TestACloudEvent:
    def test_is_read_with_all_its_attributes(self) -> None:
        raw = cloud_event(subject="a/b", time="2026-03-01T12:00:00Z", data={"x": 1}, traceparent="00-1", flag=True)
        found = parse_event(raw, limits=LIMITS)
        assert (found.id, found.source, found.type, found.subject) == ("1", "s", "t", "a/b")
        assert found.data == {"x": 1}
        assert found.extensions == {"traceparent": "00-1", "flag": True}
        assert found.time.isoformat() == "2026-03-01T12:00:00+00:00"

    def test_without_a_time_gets_the_present_one(self) -> None:
        assert parse_event(cloud_event(), limits=LIMITS).time.timestamp() == pytest.approx(time.time(), abs=5)

    def test_without_a_source_takes_that_of_the_listener(self) -> None:
        raw = json.dumps({"specversion": "1.0", "id": "1", "type": "t"}).encode()
        assert parse_event(raw, limits=LIMITS, default_source="redis:events").source == "redis:events"

    @given(events)
    def test_survives_the_way_through_the_journal(self, one: Any) -> None:
        assert stored_event(json.loads(one.to_json())) == one

    def test_cannot_be_changed(self) -> None:
        with pytest.raises(ValidationError):
            event().id = "2"

    @pytest.mark.parametrize(
        ("attributes", "named"),
        [
            ({"id": ""}, "id"),
            ({"id": 5}, "id"),
            ({"id": "a\nb"}, "id"),
            ({"id": "x" * 257}, "id"),
            ({"type": None}, "type"),
            ({"source": "\x7f"}, "source"),
            ({"specversion": "0.3"}, "specversion"),
            ({"time": "yesterday"}, "time"),
            ({"time": "2026-03-01T12:00:00"}, "time"),
            ({"subject": 4}, "subject"),
            ({"ext": {"a": 1}}, "ext"),
            ({"Extension": "x"}, "Extension"),
            ({"data_base64": "aGk="}, "data_base64"),
        ],
    )
    def test_with_a_bad_attribute_is_refused_by_that_name(self, attributes: dict[str, Any], named: str) -> None:
        error = rejected(cloud_event(**attributes))
        assert error.code == "not-a-cloudevent"
        assert named in error.reason

    def test_that_lacks_several_attributes_names_them_all(self) -> None:
        error = rejected(b'{"specversion": "1.0", "source": "s"}')
        assert "id" in error.reason
        assert "type" in error.reason


class TestPlainJson:
    def test_becomes_data_where_the_source_names_a_type(self) -> None:
        found = parse_event(b'{"a": 1}', limits=LIMITS, default_type="legacy.message", default_source="q")
        assert (found.type, found.source, found.data) == ("legacy.message", "q", {"a": 1})

    def test_gets_an_id_of_its_own_each_time(self) -> None:
        one, other = (parse_event(b"{}", limits=LIMITS, default_type="t") for _ in range(2))
        assert one.id != other.id

    def test_is_refused_where_the_source_names_no_type(self) -> None:
        assert rejected(b'{"a": 1}').code == "not-a-cloudevent"

    @pytest.mark.parametrize("raw", [b"[1]", b"3", b'"text"', b"null", b"true"])
    def test_that_is_no_object_is_refused(self, raw: bytes) -> None:
        assert rejected(raw, default_type="t").code == "not-an-object"


class TestBytesThatAreNotJson:
    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"{",
            b"hello",
            b'{"a": 1} x',
            b'{"a": NaN}',
            b'{"a": -Infinity}',
            b'{"a": 1e999}',
            b'{"a": 123456789012345678901234567890}',
            b'{"a": 18446744073709551616}',
            b'{"a": "\\ud800"}',
            b'{"a": 1, "a": 2}',
            b"\xff\xfe",
            b'{"a": "\xff"}',
            b"{'a': 1}",
        ],
    )
    def test_are_refused(self, raw: bytes) -> None:
        assert rejected(raw, default_type="t").code == "not-json"

    @given(st.binary(max_size=200))
    def test_never_raise_anything_else(self, raw: bytes) -> None:
        with suppress(RejectedEvent):
            parse_event(raw, limits=LIMITS, default_type="t")

    @given(st.text(alphabet='{}[]",:\\u0019aeE+-. \n', max_size=80))
    def test_never_raise_anything_else_however_near_to_json(self, text: str) -> None:
        with suppress(RejectedEvent):
            parse_event(text.encode(), limits=LIMITS, default_type="t")


class TestLimits:
    def test_a_message_of_the_greatest_size_is_taken_and_one_byte_more_is_not(self) -> None:
        raw = b'{"a": "xx"}'
        assert parse_json(raw, Limits(max_bytes=len(raw))) == {"a": "xx"}
        assert rejected(raw, limits=Limits(max_bytes=len(raw) - 1)).code == "too-large"

    @pytest.mark.parametrize("depth", [1, 5, 64])
    def test_nesting_is_taken_up_to_the_limit_and_no_deeper(self, depth: int) -> None:
        limits = Limits(max_depth=depth)
        assert parse_json(b"[" * depth + b"]" * depth, limits) is not None
        with pytest.raises(RejectedEvent) as caught:
            parse_json(b"[" * (depth + 1) + b"]" * (depth + 1), limits)
        assert caught.value.code == "too-deep"

    def test_brackets_in_texts_are_no_nesting(self) -> None:
        assert parse_json(b'{"a": "' + b"[{" * 100 + b'\\"["}', Limits(max_depth=2)) is not None

    @given(json_values)
    def test_what_is_accepted_is_read_as_any_other_json_reader_reads_it(self, value: JsonValue) -> None:
        raw = json.dumps(value).encode()
        assert parse_json(raw, LIMITS) == json.loads(raw)

    @given(json_values, st.sampled_from(["a", ":", "é", '"', "\\u003a", "\n"]), st.integers(0, 3), st.booleans())
    def test_a_key_that_stands_twice_is_refused_wherever_it_stands(
        self, value: JsonValue, key: str, depth: int, ascii_only: bool
    ) -> None:
        name, inner = (json.dumps(part, ensure_ascii=ascii_only) for part in (key, value))
        raw = f'{{{name}: {inner}, "b": ":", {name}: {inner}}}'
        for _ in range(depth):
            raw = f'{{"c": [{raw}]}}'
        assert rejected(raw.encode(), default_type="t").code == "not-json"

    @pytest.mark.parametrize(
        "twice",
        [
            rb'{"\u003a": 1, "\u003a": 2}',
            rb'{"a": 1, "a": "\u003a"}',
            rb'{"a": "\u003A", "a": 1}',
            rb'{"a": 1, "\u0061": 2}',
        ],
    )
    def test_a_key_that_stands_twice_is_refused_behind_escapes_too(self, twice: bytes) -> None:
        assert rejected(twice, default_type="t").code == "not-json"

    @pytest.mark.parametrize(
        "number", ["18446744073709551616", "-9223372036854775809", "1e999", "-1E+400", "1" + "0" * 400 + ".5"]
    )
    def test_a_number_that_is_too_large_is_refused_wherever_it_stands(self, number: str) -> None:
        assert rejected(f'{{"a": [{{"b": {number}}}]}}'.encode(), default_type="t").code == "not-json"

    @pytest.mark.parametrize("number", ["18446744073709551615", "-9223372036854775808", "1e308", "4.9e-324", "-0.0"])
    def test_the_largest_numbers_are_taken_as_they_are(self, number: str) -> None:
        assert repr(parse_json(number.encode(), LIMITS)) == repr(json.loads(number))

    @given(st.text(alphabet='{}[]",:\\u0039aeE+-. \n', max_size=80))
    def test_what_is_taken_of_what_is_near_to_json_is_read_as_any_other_reader_reads_it(self, text: str) -> None:
        with suppress(RejectedEvent):
            assert repr(parse_json(text.encode(), LIMITS)) == repr(json.loads(text))

    def test_a_megabyte_of_open_brackets_is_refused_without_recursion(self) -> None:
        assert rejected(b"[" * 1_000_000).code == "too-deep"


class TestPrefectsHydrationKey:
    @given(json_values, st.lists(st.sampled_from(["list", "dict"]), max_size=10))
    def test_is_found_at_any_depth(self, value: JsonValue, way: list[str]) -> None:
        hidden: Any = {"__prefect_kind": value}
        for step in way:
            hidden = [1, hidden] if step == "list" else {"a": 1, "b": hidden}
        with pytest.raises(RejectedEvent) as caught:
            refuse_hydration(hidden)
        assert caught.value.code == "hydration"

    def test_is_refused_in_a_message_even_behind_an_escape(self) -> None:
        assert rejected(rb'{"a": [{"\u005f_prefect_kind": "jinja"}]}', default_type="t").code == "hydration"
        assert rejected(b'{"a": {"__prefect_kind": "workspace_variable"}}', default_type="t").code == "hydration"

    def test_is_only_a_key_and_may_be_spoken_of(self) -> None:
        assert parse_event(b'{"a": "__prefect_kind"}', limits=LIMITS, default_type="t").data == {"a": "__prefect_kind"}
