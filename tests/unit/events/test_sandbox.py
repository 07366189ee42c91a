"""Templates reach nothing of Python, and end, whatever they and the event hold."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.errors import RejectedEvent
from events.template import Expression, TextTemplate, ValueTemplate
from events.template_check import TemplateProblem
from tests.unit.events.making import NAMES, scope, value_of

_TOKENS = (
    "event data size name . | ( ) [ ] { } : , ' \" ~ + - * ** / % == < in is not and or if else map select "
    "sort join upper default defined 0 1 99 True none attribute = __class__ events"
)


class TestTheSandbox:
    @pytest.mark.parametrize(
        "source",
        [
            "event.__class__",
            "event['__class__']",
            "event.data.__class__.__mro__",
            "event.data['__init__']['__globals__']",
            "''.__class__",
            "[].__class__.__base__",
            "event.data | attr('__class__')",
            "event.data | map(attribute='__class__') | list",
            "[event.data] | map(attribute='__class__.__mro__') | list",
            "[event.data] | sort(attribute='__class__')",
            "'%s' % event",
            "'{0.__class__}'.format(event)",
            "event.data.keys()",
            "lipsum",
            "cycler",
            "namespace",
            "self.__init__",
            "request",
            "().__class__",
        ],
    )
    def test_leads_to_no_attribute_of_python(self, source: str) -> None:
        with pytest.raises((TemplateProblem, RejectedEvent)):
            Expression(source, NAMES).value(scope({"name": "x"}))

    @pytest.mark.parametrize("key", ["__class__", "__init__", "keys", "get", "mro"])
    def test_reads_such_a_name_from_an_event_as_any_other_key(self, key: str) -> None:
        assert value_of(f"event.data.{key}", {key: "mine"}) == "mine"

    @given(st.text(max_size=40))
    def test_answers_any_source_with_a_problem_a_fault_or_json(self, source: str) -> None:
        with suppress(TemplateProblem, RejectedEvent):
            ValueTemplate("{{ " + source + " }}", NAMES).render(scope({"a": 1}))

    @given(
        st.lists(
            st.sampled_from(_TOKENS.split()),
            max_size=14,
        )
    )
    def test_answers_any_tokens_with_a_problem_a_fault_or_json(self, tokens: list[str]) -> None:
        with suppress(TemplateProblem, RejectedEvent):
            ValueTemplate("{{ " + " ".join(tokens) + " }}", NAMES).render(scope({"size": 1, "name": "x"}))


class TestBounds:
    """Without bounds these take hours, or all memory: none would end within the time that every test has."""

    BIG = "x" * 900_000

    @pytest.mark.parametrize(
        "source",
        [
            "'a' * 999999999",
            "[0] * 999999999",
            "9 ** 9 ** 9",
            "2 ** 99999999",
            "(2 ** 64) ** 64",
            "event.data ~ event.data ~ event.data ~ event.data ~ event.data",
            "[event.data, event.data, event.data, event.data, event.data] | join",
            "event.data | replace('x', event.data)",
            "event.data | list | join(event.data)",
            "event.data | list | map('replace', 'x', event.data) | list",
            "event.data | list | map(attribute='y', default=event.data) | map('length') | sum",
            "event.data | list | select('in', event.data) | list | length",
            "event.data | list | map('default', event.data, true) | map('tojson') | join",
        ],
    )
    def test_hold_however_large_the_event(self, source: str) -> None:
        with suppress(RejectedEvent):
            value_of(source, self.BIG)

    def test_count_every_value_that_is_encoded(self) -> None:
        with pytest.raises(RejectedEvent, match="steps of work"):
            value_of("event.data | list | map('tojson') | list | length", self.BIG)

    def test_do_not_trouble_ordinary_work(self) -> None:
        rows = [{"n": index, "name": f"row {index}"} for index in range(10_000)]
        assert value_of("event.data | map(attribute='n') | sum", rows) == sum(range(10_000))
        assert len(value_of("event.data | selectattr('n', 'even') | map(attribute='name') | list", rows)) == 5000

    def test_stop_a_text_that_grows_too_long(self) -> None:
        with pytest.raises(RejectedEvent):
            TextTemplate("{{ event.data }}" * 6, NAMES).render(scope(self.BIG))
