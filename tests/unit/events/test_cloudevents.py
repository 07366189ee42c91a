"""CloudEvents 1.0 as JSON: the cases of the specification and of its own SDKs' tests, in our words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.cloudevents import header_text
from events.errors import RejectedEvent
from events.event import Event, parse_event
from events.signal import parse_signal
from events.untrusted_json import Limits

LEAST = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}


def _read(**attributes: Any) -> Event:
    return parse_event(json.dumps({**LEAST, **attributes}).encode(), limits=Limits())


def _refused(**attributes: Any) -> str:
    with pytest.raises(RejectedEvent) as caught:
        _read(**attributes)
    assert caught.value.code == "not-a-cloudevent"
    return caught.value.reason


class TestNull:
    @pytest.mark.parametrize("name", ["time", "subject", "datacontenttype", "dataschema", "data", "data_base64", "ext"])
    def test_counts_as_unset(self, name: str) -> None:
        found, plain = _read(**{name: None}), _read()
        assert found.model_copy(update={"time": plain.time}) == plain

    @pytest.mark.parametrize("name", ["id", "type", "source"])
    def test_is_as_bad_as_missing_where_the_attribute_is_needed(self, name: str) -> None:
        assert name in _refused(**{name: None})

    def test_as_source_lets_the_listener_name_it(self) -> None:
        raw = json.dumps({**LEAST, "source": None}).encode()
        assert parse_event(raw, limits=Limits(), default_source="redis:events").source == "redis:events"

    def test_as_version_makes_it_plain_json(self) -> None:
        raw = json.dumps({**LEAST, "specversion": None}).encode()
        found = parse_event(raw, limits=Limits(), default_type="legacy")
        assert (found.type, found.data) == ("legacy", {**LEAST, "specversion": None})
        with pytest.raises(RejectedEvent, match="no `specversion`"):
            parse_event(raw, limits=Limits())


class TestTime:
    @pytest.mark.parametrize(
        ("text", "means"),
        [
            ("2018-04-05T03:56:24Z", "2018-04-05T03:56:24+00:00"),
            ("2018-04-05t03:56:24z", "2018-04-05T03:56:24+00:00"),
            ("2018-04-05 03:56:24Z", "2018-04-05T03:56:24+00:00"),
            ("2018-04-05T17:31:00+02:00", "2018-04-05T17:31:00+02:00"),
            ("2018-04-05T17:31:00-00:00", "2018-04-05T17:31:00+00:00"),
            ("2019-11-06T11:08:00.5Z", "2019-11-06T11:08:00.500000+00:00"),
            ("2020-07-06T08:00:00.123456789Z", "2020-07-06T08:00:00.123456+00:00"),
            ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59+00:00"),
            ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00+00:00"),
        ],
    )
    def test_of_rfc_3339_is_taken(self, text: str, means: str) -> None:
        assert _read(time=text).time.isoformat() == means

    @pytest.mark.parametrize(
        "bad",
        [
            "",
            "yesterday",
            "2018-04-05",
            "2018-04-05T03:56Z",
            "2018-04-05T03:56:24",
            "20180405T035624Z",
            "2018-04-05T03:56:24+0200",
            "2018-04-05T03:56:24 Z",
            "2018-13-05T03:56:24Z",
            "2023-02-29T00:00:00Z",
            "2018-04-05T25:00:00Z",
            "Thu, 05 Apr 2018 03:56:24 GMT",
            "1522900584",
            "٢٠١٨-04-05T03:56:24Z",
            1522900584,
            1522900584.5,
            True,
            {"at": 1},
        ],
    )
    def test_of_any_other_form_is_refused(self, bad: Any) -> None:
        assert "time" in _refused(time=bad)


class TestAttributes:
    @pytest.mark.parametrize("name", ["subject", "datacontenttype", "dataschema", "id", "source", "type"])
    def test_that_are_empty_are_refused(self, name: str) -> None:
        assert name in _refused(**{name: ""})

    @pytest.mark.parametrize("name", ["subject", "datacontenttype", "dataschema", "id", "source", "type"])
    @pytest.mark.parametrize("bad", [1234, 1.5, False, [], {}])
    def test_of_another_type_than_text_are_refused(self, name: str, bad: Any) -> None:
        assert name in _refused(**{name: bad})

    @pytest.mark.parametrize("name", ["subject", "id", "source", "type", "ext", "datacontenttype"])
    @pytest.mark.parametrize("bad", ["\t", "\n", "\x7f", "\x85", "\x9b31m", "\ufdd0", "\uffff"])
    def test_with_characters_that_no_attribute_may_hold_are_refused(self, name: str, bad: str) -> None:
        assert f"U+{ord(bad[0]):04X}" in _refused(**{name: f"a{bad}b"})

    def test_of_any_other_characters_are_taken(self) -> None:
        text = "Grüße, 世界 👩‍🚀 \u00a0\u00ad"
        found = _read(subject=text, id=text, ext=text)
        assert (found.subject, found.id, found.extensions) == (text, text, {"ext": text})

    @pytest.mark.parametrize("bad", ["0.3", "1", "1.1", "2.0", "1.0.2", "", 1.0])
    def test_of_another_version_are_refused(self, bad: Any) -> None:
        assert "specversion" in _refused(specversion=bad)

    @pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "text/plain", "a/b+json"])
    def test_that_describe_the_data_do_not_change_it(self, kind: str) -> None:
        assert _read(datacontenttype=kind, data="Hello").data == "Hello"
        assert _read(datacontenttype=kind, dataschema="https://example.com/s#x", data={"a": 1}).data == {"a": 1}

    def test_that_hold_binary_data_are_refused_with_a_way_out(self) -> None:
        assert "send JSON in `data`" in _refused(data_base64="aGVsbG8=")


class TestExtensions:
    @pytest.mark.parametrize("good", ["", "text", True, False, 0, -1, 2**31, 2**53])
    def test_are_texts_whole_numbers_or_booleans(self, good: Any) -> None:
        found = _read(ext=good).extensions["ext"]
        assert (found, type(found)) == (good, type(good))

    @pytest.mark.parametrize("bad", [1.5, {"a": 1}, ["a"]])
    def test_of_another_type_are_refused(self, bad: Any) -> None:
        assert "texts, whole numbers or booleans" in _refused(ext=bad)

    @pytest.mark.parametrize("name", ["Ext", "my_ext", "my-ext", "ext!", "é", " ext", "", "x" * 65, "Type", "ID"])
    def test_have_names_of_lower_case_letters_and_digits(self, name: str) -> None:
        assert repr(name[:80]) in _refused(**{name: "x"})

    @pytest.mark.parametrize("name", ["e", "42", "traceparent", "longerthantwentycharacters", "comexampleextension1"])
    def test_may_have_longer_names_than_the_specification_recommends(self, name: str) -> None:
        assert _read(**{name: "x"}).extensions == {name: "x"}


class TestHeaders:
    @pytest.mark.parametrize(
        ("raw", "text"),
        [
            (b"/mycontext/subcontext", "/mycontext/subcontext"),
            (b"Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
            (b"caf%c3%a9", "café"),
            (b"caf\xc3\xa9", "café"),
            (b"%41%42C", "ABC"),
            (b"2023-01-15T10%3A30%3A45Z", "2023-01-15T10:30:45Z"),
            (b'"Euro%20x"', "Euro x"),
            (b'"a b"', "a b"),
            (b'"say \\"hi\\" \\\\ there"', 'say "hi" \\ there'),
            (b'""', ""),
            (b"%22quoted%22", '"quoted"'),
            (b'5" disk', '5" disk'),
            (b"%2525", "%25"),
            (b"100%", "100%"),
            (b"%zz", "%zz"),
            (b" padded \t", "padded"),
            (b"a+b", "a+b"),
        ],
    )
    def test_are_unquoted_and_then_decoded_once(self, raw: bytes, text: str) -> None:
        assert header_text("ce-subject", raw) == text

    @pytest.mark.parametrize(
        "raw", [b"caf%E9", b"caf\xe9", b"%C0%A0", b"%ED%A0%80", b"%F5%80%80%80", b"%E2%82", b'"%ff"']
    )
    def test_that_are_not_utf_8_are_refused(self, raw: bytes) -> None:
        with pytest.raises(RejectedEvent, match="ce-subject is not UTF-8"):
            header_text("ce-subject", raw)

    @pytest.mark.parametrize("raw", [b'"', b'"open', b'"a" b"', b'"a" and "b"', b'"a\\"'])
    def test_that_are_quoted_in_part_are_refused(self, raw: bytes) -> None:
        with pytest.raises(RejectedEvent, match="double quote"):
            header_text("ce-subject", raw)

    @given(st.text(st.characters(codec="utf-8")))
    def test_written_as_the_binding_asks_are_read_as_they_were(self, text: str) -> None:
        safe = set(map(chr, range(0x21, 0x7F))) - {'"', "%"}
        written = "".join(c if c in safe else "".join(f"%{byte:02X}" for byte in c.encode()) for c in text)
        assert header_text("ce-subject", written.encode()) == text


def test_a_resume_message_cannot_claim_to_come_of_an_event() -> None:
    for name in ("event_id", "event_identity"):
        for message in ({"key": "k", name: "e"}, {**LEAST, "type": "sluice.resume", "data": {"key": "k", name: "e"}}):
            with pytest.raises(RejectedEvent, match=name):
                parse_signal(json.dumps(message).encode(), limits=Limits())


def test_text_as_data_may_hold_what_no_attribute_may() -> None:
    assert _read(data="a\tb\x9b\n").data == "a\tb\x9b\n"
