"""Compares the effects of changed rules with those of the present rules on past events. Starts nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from events.action import Action, ResumeRun, RunDeployment
from events.event import Event
from events.rule import Rule, RuleSet, Verdict, evaluate


@dataclass(frozen=True, slots=True)
class Effect:
    """The effect of one rule on one event: a run, a resume, a place in a window, or a dead letter."""

    rule: str
    does: str
    """For people: ``run ingest-file/default``, ``resume order-7``, ``dead letter``."""
    content: str
    """The whole effect as JSON; two effects with the same content are the same."""


@dataclass(frozen=True, slots=True)
class Difference:
    """An effect that the changed rules have and the present ones have not (``started``), or the reverse."""

    change: Literal["started", "missing"]
    event: Event
    effect: Effect


def compare(present: RuleSet, changed: RuleSet, events: Iterable[Event]) -> Iterator[Difference]:
    """Return where the effects of the two differ, event by event.

    Windows are not simulated: an event that a rule gathers counts as gathered under its key, and one that a throttle or
    a ``dedupe_key`` would drop counts as passed. A renamed rule makes no difference.
    """
    for event in events:
        before, after = effects_of(present, event), effects_of(changed, event)
        for change, ours, theirs in (("missing", before, after), ("started", after, before)):
            there = Counter(effect.content for effect in theirs)
            for effect in ours:
                if there[effect.content]:
                    there[effect.content] -= 1
                else:
                    yield Difference(change, event, effect)  # type: ignore[arg-type]


def effects_of(rules: RuleSet, event: Event) -> list[Effect]:
    """Return the effects of the rules on one event."""
    found: list[Effect] = []
    for verdict in evaluate(rules, event):
        rule = rules.get(verdict.rule)
        if verdict.matched and rule is not None:
            found += _effects(rule, verdict)
    return found


def _effects(rule: Rule, verdict: Verdict) -> Iterator[Effect]:
    """Yield the effects of a rule on one event; what a window gathers is compared by the window's definition."""
    if verdict.error is not None:
        yield Effect(rule.name, "dead letter", _content({"error": verdict.error.code, "reason": verdict.error.reason}))
        return
    for action in verdict.actions:
        yield Effect(rule.name, summary(action), _content(described(action)))
    if rule.gathers and verdict.keys is not None:
        spec = rule.spec
        mode = "batch" if spec.batch else "debounce" if spec.debounce else "correlate"
        window = getattr(spec, mode).model_dump(mode="json")
        does = [one.model_dump(mode="json", exclude={"name", "description", "tests"}) for one in spec.actions]
        content = {"window": mode, "key": verdict.keys.gather, "how": window, "does": does}
        yield Effect(
            rule.name, f"{mode} for {', '.join(one.run or 'resume' for one in spec.actions)}", _content(content)
        )


def summary(action: Action) -> str:
    """The action in a few words."""
    if isinstance(action, RunDeployment):
        return f"run {action.deployment}"
    return f"{action.action} {action.key if action.key is not None else f'run {action.run_id}'}"


def described(action: RunDeployment | ResumeRun) -> dict[str, Any]:
    """Return the action's content, without its rule and event."""
    return action.model_dump(mode="json", exclude={"rule", "identities", "ordinal", "salt"}, exclude_defaults=True) | {
        "kind": action.kind
    }


def _content(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
