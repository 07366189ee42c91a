"""Compiled rules: which events each matches, and its actions. Pure: the same event gets the same verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol

from events.action import Action
from events.errors import RejectedEvent
from events.event import Event
from events.glob import Globs
from events.rule_model import RuleSpec
from events.rule_parts import EVENT_KEYS, PartsCompiler, RuleProblems
from events.template import TextTemplate, view

LONGEST_KEY: Final = 512

MOST_REMEMBERED_TYPES: Final = 2000

Criterion = Literal["enabled", "stop", "type", "source", "subject", "when"]


class WindowKeys(NamedTuple):
    """Under which keys an event meets the windows of its rule; None where the rule has no such window."""

    gather: str | None = None
    """Of ``batch``, ``debounce`` or ``correlate``."""
    throttle: str | None = None
    dedupe: str | None = None


class Verdict(NamedTuple):
    """What one rule says to one event.

    Matched: ``actions`` are what is to be done, unless ``error`` says why they could not be rendered. ``keys`` is set
    where the rule has windows: they decide, and for a rule that gathers events they make the actions later.
    Not matched: ``failed`` is the first criterion that did not hold and ``detail`` says with which value; for ``type``,
    where one verdict serves all events, `explained` does.
    """

    rule: str
    matched: bool
    failed: Criterion | None = None
    detail: str = ""
    actions: tuple[Action, ...] = ()
    error: RejectedEvent | None = None
    keys: WindowKeys | None = None


class NotMatched(Protocol):
    """What `explained` looks at of a verdict."""

    @property
    def failed(self) -> str | None: ...
    @property
    def detail(self) -> str: ...


def explained(verdict: NotMatched, type_: str) -> str:
    """Why the rule did not match an event of this type, with the value that the criterion failed with."""
    return f"{verdict.detail}: {type_!r}" if verdict.failed == "type" else verdict.detail


class Rule:
    """One compiled rule."""

    __slots__ = (
        "_actions",
        "_dedupe_key",
        "_gather_key",
        "_source",
        "_subject",
        "_throttle_key",
        "_when",
        "fits_type",
        "name",
        "spec",
        "types",
        "wanted",
    )

    def __init__(self, spec: RuleSpec) -> None:
        """Raises `RuleProblems` with every bad glob and template."""
        self.name = spec.name
        self.spec = spec
        compiler = PartsCompiler()
        self.types = {kind: compiler.globs(path, globs) for kind, path, globs in _types(spec)}
        every = Globs([pattern for globs in self.types.values() for pattern in globs.patterns])
        self.fits_type, self.wanted = every.matches, str(every)
        self._source = compiler.globs(("source",), spec.source) if spec.source else None
        self._subject = compiler.globs(("subject",), spec.subject) if spec.subject else None
        self._when = compiler.expression(("when",), spec.when)
        gathering = next(
            (name for name in ("batch", "debounce", "correlate") if getattr(spec, name) is not None), "batch"
        )
        window = getattr(spec, gathering)
        self._gather_key = compiler.key((gathering, "key"), window.key if window else None)
        self._throttle_key = compiler.key(("throttle", "key"), spec.throttle.key if spec.throttle else None)
        self._dedupe_key = compiler.key(("dedupe_key",), spec.dedupe_key)
        names: dict[str, frozenset[str] | None] = {"event": EVENT_KEYS}
        if window is not None:
            names["events"] = None
        if spec.correlate is not None:
            names["joined"] = frozenset(spec.correlate.all)
        self._actions = tuple(
            compiler.action(("do", index) if spec.do else (), action, ordinal=index, rule=spec.name, names=names)
            for index, action in enumerate(spec.actions)
        )
        if compiler.problems:
            raise RuleProblems(compiler.problems)

    @property
    def gathers(self) -> bool:
        """Whether the rule makes one run of several events."""
        return any((self.spec.batch, self.spec.debounce, self.spec.correlate))

    @property
    def has_windows(self) -> bool:
        return self.gathers or self.spec.throttle is not None or self.spec.dedupe_key is not None

    def kinds(self, type_: str) -> list[str]:
        """Which of the rule's kinds of events ``type_`` is; without ``correlate`` the one kind is called ``on``."""
        return [kind for kind, globs in self.types.items() if globs.matches(type_)]

    def actions(self, events: Sequence[Event], joined: Mapping[str, Event] | None = None) -> tuple[Action, ...]:
        """What the rule does for ``events``, the oldest first; ``joined`` has the event of each kind of ``correlate``.

        Raises `RejectedEvent` where a template cannot be rendered.
        """
        views = [view(event) for event in events]
        scope: dict[str, Any] = {"event": views[-1]}
        if self.gathers:
            scope["events"] = views
        if joined is not None:
            scope["joined"] = {kind: view(event) for kind, event in joined.items()}
        return self._render(tuple(event.identity for event in events), scope)

    def judge(self, event: Event, scope: Mapping[str, Any] | None = None) -> Verdict:
        """The verdict on an event whose type fits; ``scope`` is that of `scope_of`, made here where it is left out."""
        if scope is None:
            scope = scope_of(event)
        name = self.name
        if self._source is not None and not self._source.matches(event.source):
            return Verdict(name, False, "source", f"the source {event.source!r} does not match {self._source}")
        if self._subject is not None and (event.subject is None or not self._subject.matches(event.subject)):
            said = "there is no subject to" if event.subject is None else f"the subject {event.subject!r} does not"
            return Verdict(name, False, "subject", f"{said} match {self._subject}")
        if self._when is not None:
            try:
                held = self._when.value(scope)
            except RejectedEvent as error:
                return Verdict(name, False, "when", f"it could not be evaluated: {error.reason}")
            if not held:
                return Verdict(name, False, "when", f"{self._when.source}: {self._when.explain(scope)}")
        try:
            keys = self._keys(scope) if self.has_windows else None
            actions = () if self.gathers else self._render((event.identity,), scope)
        except RejectedEvent as error:
            return Verdict(name, True, error=error)
        return Verdict(name, True, actions=actions, keys=keys)

    def _render(self, identities: tuple[str, ...], scope: Mapping[str, Any]) -> tuple[Action, ...]:
        return tuple(action.render(identities, scope) for action in self._actions)

    def _keys(self, scope: Mapping[str, Any]) -> WindowKeys:
        return WindowKeys(
            gather=_rendered(self._gather_key, scope) if self.gathers else None,
            throttle=_rendered(self._throttle_key, scope) if self.spec.throttle else None,
            dedupe=_rendered(self._dedupe_key, scope) if self.spec.dedupe_key else None,
        )


class RuleSet:
    """All rules, in order. Which of them an event's type leaves is remembered, for types come again."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self.rules = tuple(rules)
        self._by_name = {rule.name: rule for rule in self.rules}
        self._enabled = [(index, rule.fits_type) for index, rule in enumerate(self.rules) if rule.spec.enabled]
        self.settled = [
            Verdict(rule.name, False, "type", f"the type does not match {rule.wanted}")
            if rule.spec.enabled
            else Verdict(rule.name, False, "enabled", "the rule is disabled")
            for rule in self.rules
        ]
        """The verdict of each rule on every event whose type it is not for."""
        self._candidates: dict[str, list[tuple[int, Rule]]] = {}

    def __len__(self) -> int:
        return len(self.rules)

    def get(self, name: str) -> Rule | None:
        """The rule called ``name``."""
        return self._by_name.get(name)

    def candidates(self, type_: str) -> list[tuple[int, Rule]]:
        """The enabled rules whose globs fit the type, each with its place."""
        found = self._candidates.get(type_)
        if found is None:
            if len(self._candidates) >= MOST_REMEMBERED_TYPES:
                self._candidates.clear()
            found = [(index, self.rules[index]) for index, fits_type in self._enabled if fits_type(type_)]
            self._candidates[type_] = found
        return found


def evaluate(rules: RuleSet, event: Event) -> tuple[Verdict, ...]:
    """The verdict of every rule on ``event``, in the order of the rules.

    No verdict depends on another rule, except that those below a rule that matched with ``stop`` have failed with
    ``stop``. Never raises: a template that cannot be rendered is the verdict's ``error``.
    """
    verdicts = rules.settled.copy()
    candidates = rules.candidates(event.type)
    if candidates:
        scope = scope_of(event)
        for index, rule in candidates:
            verdict = rule.judge(event, scope)
            verdicts[index] = verdict
            if rule.spec.stop and verdict.matched:
                stopped = f"the rule {rule.name!r} above it matched and has `stop`"
                verdicts[index + 1 :] = [
                    Verdict(below.name, False, "stop", stopped) if below.spec.enabled else verdicts[position]
                    for position, below in enumerate(rules.rules[index + 1 :], index + 1)
                ]
                break
    return tuple(verdicts)


def scope_of(event: Event) -> dict[str, Any]:
    """What the templates of a rule see that looks at one event."""
    return {"event": view(event)}


def _types(spec: RuleSpec) -> list[tuple[str, tuple[str | int, ...], tuple[str, ...]]]:
    if spec.correlate is not None:
        return [(kind, ("correlate", "all", kind), globs) for kind, globs in spec.correlate.all.items()]
    return [("on", ("on",), spec.on or ("*",))]


def _rendered(key: TextTemplate | None, scope: Mapping[str, Any]) -> str:
    if key is None:
        return ""
    rendered = key.render(scope)
    if len(rendered) > LONGEST_KEY:
        raise RejectedEvent(
            "template", f"{key.source!r}: the key has {len(rendered)} characters; at most {LONGEST_KEY}"
        )
    return rendered
