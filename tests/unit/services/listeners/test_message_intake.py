"""What untrusted bytes may do to Sluice: become an event or a dead letter, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.errors import RejectedEvent, TransientError
from events.event import Event, parse_event
from events.identity import identity_of
from events.signal import ResumeSignal
from events.untrusted_json import Limits
from services.listeners.message_intake import Message, MessageIntake, event_intake, signal_intake
from tests.support.sources import Letters, cloudevent

LIMITS = Limits(max_bytes=1024 * 1024, max_depth=64)


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


HOSTILE = [
    pytest.param(b"", "not-json", id="nothing"),
    pytest.param(b"hello", "not-json", id="not JSON"),
    pytest.param(b"\x80\x04\x95cos\nsystem\n", "not-json", id="a pickle"),
    pytest.param(b"\xff\xfe{\x00}\x00", "not-json", id="UTF-16"),
    pytest.param(b'{"a": 1} trailing', "not-json", id="more than one value"),
    pytest.param(b"[]", "not-an-object", id="an array"),
    pytest.param(b"null", "not-an-object", id="null"),
    pytest.param(b'"text"', "not-an-object", id="a string"),
    pytest.param(b'{"a": "' + b"x" * 2 * 1024 * 1024 + b'"}', "too-large", id="2 MiB"),
    pytest.param(nested(200), "too-deep", id="depth 200"),
    pytest.param(b"[" * 100_000, "too-deep", id="depth 100,000 and never closed"),
    pytest.param(b'{"a": NaN}', "not-json", id="NaN"),
    pytest.param(b'{"a": -Infinity}', "not-json", id="infinity"),
    pytest.param(b'{"a": 1e999}', "not-json", id="a number that no float holds"),
    pytest.param(b'{"a": ' + b"9" * 5000 + b"}", "not-json", id="an integer of 5,000 digits"),
    pytest.param(b'{"a": 18446744073709551616}', "not-json", id="an integer of 65 bits"),
    pytest.param(b'{"a": 1, "a": 2}', "not-json", id="a key twice"),
    pytest.param(b'{"a": "\\ud800"}', "not-json", id="a lone surrogate"),
    pytest.param(b'{"\\udfff": 1}', "not-json", id="a lone surrogate as key"),
    pytest.param(b'{"__prefect_kind": "jinja", "template": "{{ 7 * 7 }}"}', "hydration", id="hydration"),
    pytest.param(b'{"a": [{"b": {"__prefect_kind": "workspace_variable"}}]}', "hydration", id="hydration, deep"),
    pytest.param(b'{"__prefect\\u005fkind": "jinja"}', "hydration", id="hydration, spelled with an escape"),
    pytest.param(b'{"\\u005f_prefect_kind": 1, "a": {}}', "hydration", id="hydration, another escape"),
    pytest.param(b'{"__prefect_\\u006B\\u0069nd": 1}', "hydration", id="hydration, escapes in capitals"),
    pytest.param(b'{"a": ["\\u0000"]}', "nul", id="the character NUL"),
    pytest.param(b'{"\\u0000": 1}', "nul", id="the character NUL in a key"),
    pytest.param(b'{"specversion": "1.0"}', "not-a-cloudevent", id="a CloudEvent without attributes"),
    pytest.param(cloudevent("a").replace(b'"1.0"', b'"0.3"'), "not-a-cloudevent", id="an older CloudEvent"),
    pytest.param(cloudevent("a\nb"), "not-a-cloudevent", id="a line break in an id"),
    pytest.param(cloudevent("x" * 300), "not-a-cloudevent", id="an endless id"),
    pytest.param(cloudevent(""), "not-a-cloudevent", id="an empty id"),
    pytest.param(cloudevent("a").replace(b'"a"', b"1"), "not-a-cloudevent", id="a number as id"),
    pytest.param(cloudevent("a", time="yesterday"), "not-a-cloudevent", id="not a time"),
    pytest.param(cloudevent("a", time="2026-01-01T00:00:00"), "not-a-cloudevent", id="a time without its zone"),
    pytest.param(cloudevent("a", data_base64="AAAA"), "not-a-cloudevent", id="binary data"),
    pytest.param(cloudevent("a", **{"Not-A-Name": 1}), "not-a-cloudevent", id="an attribute with a bad name"),
    pytest.param(cloudevent("a", tenant={"a": 1}), "not-a-cloudevent", id="an attribute that is an object"),
    pytest.param(cloudevent("a", type="sluice.file.arrived"), "reserved", id="a file event"),
    pytest.param(cloudevent("a", type="Sluice.File.Arrived"), "reserved", id="a file event in capitals"),
    pytest.param(cloudevent("a", type="sluice.anything"), "reserved", id="a type of Sluice's own"),
    pytest.param(cloudevent("a", type=" sluice.file.arrived"), "reserved", id="a file event behind a blank"),
    pytest.param(cloudevent("a", type="ｓluice.file.arrived"), "reserved", id="a file event in wide letters"),  # noqa: RUF001
    pytest.param(cloudevent("a", type="slu\u200bice.file.arrived"), "reserved", id="a file event with a hidden mark"),
    pytest.param(cloudevent("a", source="files/inbox"), "reserved", id="a watched folder as source"),
    pytest.param(cloudevent("a", source="FILES/inbox"), "reserved", id="a watched folder in capitals"),
    pytest.param(cloudevent("a", type="sluice.resume", data={"key": "k"}), "reserved", id="a resume message as event"),
]


class Journal:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.troubles: list[Exception] = []

    async def emit(self, events: Sequence[Event]) -> None:
        if self.troubles:
            raise self.troubles.pop(0)
        self.events += events


def intake(journal: Journal, letters: Letters) -> MessageIntake[Event]:
    return event_intake(
        listener="redis:t", emit=journal.emit, dead=letters, limits=LIMITS, default_type="plain.message"
    )


def message(raw: bytes, key: str = "k") -> Message:
    return Message(raw=raw, key=key, origin="a test")


@pytest.mark.parametrize(("raw", "code"), HOSTILE)
async def test_hostile_bytes_are_kept_whole_and_the_next_message_is_handled(raw: bytes, code: str) -> None:
    journal, letters = Journal(), Letters()
    await intake(journal, letters).accept([message(raw, "bad"), message(cloudevent("next"), "good")])
    assert [event.id for event in journal.events] == ["next"]
    (letter,) = letters.by_id.values()
    assert (letter.code, letter.raw, letter.kind, letter.source) == (code, raw, "message", "redis:t")
    assert letter.reason
    assert "\n" not in letter.reason


@pytest.mark.parametrize(
    "text", ["{{ 7 * 7 }}", "{% for x in y %}", "${jndi:ldap://x}", "{{ config.__class__ }}", "%s%n"]
)
async def test_text_that_looks_like_a_template_stays_text(text: str) -> None:
    journal = Journal()
    await intake(journal, Letters()).accept([message(json.dumps({"name": text}).encode())])
    assert journal.events[0].data == {"name": text}


async def test_text_that_spells_an_escape_is_only_text() -> None:
    journal = Journal()
    await intake(journal, Letters()).accept([message(b'{"a": "\\\\u0000"}')])
    assert journal.events[0].data == {"a": "\\u0000"}


async def test_hydration_as_a_value_is_only_text() -> None:
    journal = Journal()
    await intake(journal, Letters()).accept([message(b'{"kind": "__prefect_kind"}')])
    assert journal.events[0].data == {"kind": "__prefect_kind"}


async def test_a_message_cannot_choose_a_type_where_it_is_plain() -> None:
    journal = Journal()
    await intake(journal, Letters()).accept([message(b'{"type": "sluice.resume", "id": "mine", "run": "other/flow"}')])
    assert (journal.events[0].type, journal.events[0].id) == ("plain.message", "k")


async def test_a_default_type_does_not_open_a_door_to_reserved_names() -> None:
    journal, letters = Journal(), Letters()
    taken = event_intake(
        listener="redis:t", emit=journal.emit, dead=letters, limits=LIMITS, default_type="sluice.file.arrived"
    )
    await taken.accept([message(b'{"path": "/etc/passwd"}')])
    assert (journal.events, letters.codes) == ([], ["reserved"])


@pytest.mark.parametrize("name", ["sluicegate.opened", "order.sluice.file.arrived", "sluice"])
async def test_names_that_only_look_alike_are_accepted(name: str) -> None:
    journal = Journal()
    await intake(journal, Letters()).accept([message(cloudevent("a", type=name, source="myfiles/inbox"))])
    assert [event.type for event in journal.events] == [name]


async def test_the_same_bad_delivery_twice_is_one_letter() -> None:
    letters = Letters()
    for _ in range(2):
        await intake(Journal(), letters).accept([message(b"bad", "entry-1")])
    await intake(Journal(), letters).accept([message(b"bad", "entry-2")])
    assert len(letters.by_id) == 2


async def test_a_batch_that_was_not_taken_leaves_no_letters_behind() -> None:
    journal, letters = Journal(), Letters()
    journal.troubles = [TransientError("not now")]
    batch = [message(b"bad", "bad"), message(cloudevent("good"), "good")]
    with pytest.raises(TransientError):
        await intake(journal, letters).accept(batch)
    assert not letters.by_id
    await intake(journal, letters).accept(batch)
    assert len(letters.by_id) == 1


async def test_a_fault_in_the_parser_costs_one_message_and_not_the_listener() -> None:
    handed: list[Event] = []

    def parse(one: Message) -> Event:
        if one.key == "bad":
            raise ZeroDivisionError
        return parse_event(one.raw, limits=LIMITS)

    async def hand_on(events: Sequence[Event]) -> None:
        handed.extend(events)

    letters = Letters()
    taking = MessageIntake(listener="t", parse=parse, hand_on=hand_on, dead=letters)
    await taking.accept([message(b"{}", "bad"), message(cloudevent("next"), "good")])
    assert letters.codes == ["unparseable"]
    assert [event.id for event in handed] == ["next"]


def test_only_a_message_with_an_id_of_its_own_is_known_again() -> None:
    taking = intake(Journal(), Letters())
    assert taking.identifies(message(cloudevent("a")))
    assert not taking.identifies(message(b'{"id": "a"}'))
    assert not taking.identifies(message(b"bad"))


async def test_signals_are_submitted_in_their_order_and_get_the_key_as_id() -> None:
    submitted: list[ResumeSignal] = []

    async def submit(signal: ResumeSignal) -> None:
        submitted.append(signal)

    letters = Letters()
    taking = signal_intake(listener="redis:resume", submit=submit, dead=letters, limits=LIMITS)
    await taking.accept(
        [
            message(b'{"key": "a"}', "entry-1"),
            message(b'{"key": "b", "id": "own"}', "entry-2"),
            message(b'{"input": {}}', "entry-3"),
            message(cloudevent("ce", type="sluice.resume", data={"key": "c"}), "entry-4"),
        ]
    )
    ids = ["entry-1", "own", identity_of("tests", "ce")]
    assert [(signal.key, signal.id) for signal in submitted] == list(zip("abc", ids, strict=True))
    assert letters.codes == ["not-a-signal"]


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_every_json_value_survives_the_way_into_the_journal_and_back(data: object) -> None:
    event = parse_event(json.dumps({"data": data}).encode(), limits=LIMITS, default_type="t", default_source="s")
    assert parse_event(event.to_json(), limits=LIMITS) == event


@given(st.binary() | st.text().map(str.encode) | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_get_past_the_two_ways_out(raw: bytes) -> None:
    try:
        event = parse_event(raw, limits=LIMITS, default_type="t")
    except RejectedEvent:
        return
    assert parse_event(event.to_json(), limits=LIMITS).data == event.data
