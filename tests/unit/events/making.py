"""Events, rules, templates and strategies that the tests of the domain share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from events.event import Event
from events.rule import Rule, RuleSet
from events.rule_model import RuleSpec
from events.rule_parts import EVENT_KEYS
from events.template import Expression, view
from events.template_check import Names

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
NAMES: Names = {"event": EVENT_KEYS, "events": None}


def event(type_: str = "order.created", **fields: Any) -> Event:
    return Event(**{"id": "e1", "source": "shop", "type": type_, "time": NOON, **fields})


def rule(**keys: Any) -> Rule:
    return Rule(RuleSpec.model_validate({"name": "r", **({} if "correlate" in keys else {"on": "*"}), **keys}))


def running(**keys: Any) -> Rule:
    return rule(**{"run": "flow/deployment", **keys})


def rules(*specs: dict[str, Any]) -> RuleSet:
    return RuleSet(running(**{"name": f"r{index}", **spec}) for index, spec in enumerate(specs))


def scope(data: Any = None, **fields: Any) -> dict[str, Any]:
    seen = view(event(data=data, **fields))
    return {"event": seen, "events": [seen]}


def value_of(source: str, data: Any = None) -> Any:
    return Expression(source, NAMES).value(scope(data))


texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=20)
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
keys = texts.filter(lambda key: key != "__prefect_kind")
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
attributes = texts.filter(lambda text: 0 < len(text) <= 20)
events = st.builds(
    Event,
    id=attributes,
    source=attributes,
    type=st.sampled_from(["order.created", "order.paid", "file.arrived", "x"]) | attributes,
    subject=st.none() | texts,
    time=st.datetimes(timezones=st.just(UTC)),
    data=json_values | st.fixed_dictionaries({"size": json_values, "name": json_values}),
    extensions=st.dictionaries(st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True), st.booleans() | texts, max_size=2),
)

DATA = {
    "path": "/in/box/Sales 2026.csv.gz",
    "name": "straße",
    "n": 7.25,
    "rows": [{"k": "b", "v": 2}, {"k": "a", "v": 1}, {"k": "b", "v": 3}],
    "tags": ["b", "a", "b"],
    "odd": ["1", None, 3],
    "at": "2026-03-01T12:30:05+01:00",
    "empty": [],
    "map": {"x": 1, "y": 2},
}
"""What the tests of filters work on."""


def evaluated(source: str) -> Any:
    return Expression(source, dict.fromkeys(DATA)).value(DATA)
