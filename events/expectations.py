"""The tests of a rule in the project file: an event, and the expected runs and resumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import BaseModel

from events.action import Action, ResumeRun, RunDeployment
from events.errors import RejectedEvent
from events.event import Event, event_from_mapping
from events.rule import Rule
from events.rule_model import ExpectedResume, ExpectedRun, RuleTest
from events.rule_parts import RuleProblem

_MOMENT: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""The time of a test's event without one, so that a test has the same result on any day."""


def run_tests(rule: Rule) -> list[RuleProblem]:
    """Return the failures of the rule's tests. They evaluate only this rule, even if it is disabled."""
    problems = []
    for index, test in enumerate(rule.spec.tests):
        named = f"the test {test.name!r}" if test.name else "the test"
        problems += [RuleProblem(("tests", index), f"{named} failed: {message}") for message in _failures(rule, test)]
    return problems


def _failures(rule: Rule, test: RuleTest) -> list[str]:
    """Return what a rule's test found different from what it expects; nothing if it passes."""
    try:
        events = [_event(rule, given, number) for number, given in enumerate(test.events or [test.event or {}], 1)]
        for event in events:
            criterion, detail = _criterion(rule, event)
            if criterion is not None:
                return _not_matched(test, event, criterion, detail)
        if test.failed is not None:
            return [f"the rule matched, where `{test.failed}` should have failed"]
        actions = rule.actions(events, _joined(rule, events))
    except RejectedEvent as error:
        return [] if test.error is not None and test.error in error.reason else [error.reason]
    if test.error is not None:
        return [f"nothing went wrong, where an error with {test.error!r} was expected"]
    runs = [action for action in actions if isinstance(action, RunDeployment)]
    resumes = [action for action in actions if isinstance(action, ResumeRun)]
    return [*_differences("run", test.runs, runs), *_differences("resume", test.resumes, resumes)]


def _not_matched(test: RuleTest, event: Event, criterion: str, detail: str) -> list[str]:
    expected_nothing = test.failed is None and test.error is None and not (test.runs or test.resumes)
    if expected_nothing or test.failed == criterion:
        return []
    return [f"the event {event.id!r} did not match: {criterion}: {detail}"]


def _event(rule: Rule, given: Mapping[str, Any], number: int) -> Event:
    globs = next(iter(rule.types.values())).patterns
    plain = globs[0] if len(globs) == 1 and not set("*?[") & set(globs[0]) else None
    filled = {
        "specversion": "1.0",
        "id": f"test-{number}",
        "source": "test",
        "time": _MOMENT.isoformat(),
        **({"type": plain} if plain else {}),
        **given,
    }
    return event_from_mapping(filled)


def _criterion(rule: Rule, event: Event) -> tuple[str | None, str]:
    if not rule.fits_type(event.type):
        return "type", f"the type does not match {rule.wanted}: {event.type!r}"
    verdict = rule.judge(event)
    return verdict.failed, verdict.detail


def _joined(rule: Rule, events: Sequence[Event]) -> dict[str, Event] | None:
    if rule.spec.correlate is None:
        return None
    joined: dict[str, Event] = {}
    for event in events:
        for kind in rule.kinds(event.type):
            joined.setdefault(kind, event)
    missing = rule.spec.correlate.all.keys() - joined.keys()
    if missing:
        raise RejectedEvent("incomplete", f"the test has no event of the kind {min(missing)!r}")
    return joined


def _differences(
    what: str, expected: Sequence[ExpectedRun | ExpectedResume] | None, found: Sequence[Action]
) -> list[str]:
    if expected is None:
        return []
    if len(expected) != len(found):
        return [f"{len(expected)} expected of `{what}`, {len(found)} found"]
    return [
        f"{what} {number}: {name} is {actual!r}, expected {wanted!r}"
        for number, (one, action) in enumerate(zip(expected, found, strict=True), 1)
        for name, wanted, actual in _pairs(one, action)
        if wanted != actual
    ]


def _pairs(expected: BaseModel, action: Action) -> list[tuple[str, Any, Any]]:
    return [
        (name, getattr(expected, name), getattr(action, "deployment" if name == "run" else name))
        for name in expected.model_fields_set
    ]
