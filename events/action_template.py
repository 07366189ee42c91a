"""The action of a rule before the event is known: every text in it is a template."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from pydantic import JsonValue, ValidationError

from events.action import RUN_NAME_LIMIT, Action, ResumeRun, RunDeployment
from events.errors import RejectedEvent
from events.filters.bounds import kind
from events.rule_model import LONGEST_WINDOW_SECONDS, ActionSpec, ResumeSpec
from events.template import TextTemplate, ValueTemplate
from events.template_check import Names, TemplateProblem
from events.untrusted_json import parts_of
from sluice.display import visible

Scope = Mapping[str, Any]
T = TypeVar("T")


class ActionTemplate:
    """One action of a rule; `render` fills it in from the events. With ``problems`` it must not be rendered."""

    def __init__(self, spec: ActionSpec, *, rule: str, ordinal: int, names: Names) -> None:
        self.problems: list[tuple[tuple[str | int, ...], str]] = []
        self._names = names
        self._rule = rule
        self._ordinal = ordinal
        self._make = self._resume(spec.resume) if spec.resume is not None else self._run(spec)

    def render(self, identities: tuple[str, ...], scope: Scope) -> Action:
        """Return the action for the events; raises `RejectedEvent` (``template``, ``hydration``)."""
        try:
            return self._make(identities, scope)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            raise RejectedEvent("template", f"the action of rule {self._rule!r} is not valid: {faults}") from error

    def _run(self, spec: ActionSpec) -> Callable[[tuple[str, ...], Scope], Action]:
        """Compile what the action says of its run; the function returned renders it for given events."""
        deployment = spec.run or ""
        parameters = self._mapping(("parameters",), spec.parameters)
        run_name = self._text(("run_name",), spec.run_name)
        tags = [self._text(("tags", index), tag) for index, tag in enumerate(spec.tags)]
        work_queue = self._text(("work_queue",), spec.work_queue)
        job_variables = self._mapping(("job_variables",), spec.job_variables)
        after_seconds = self._seconds(("after_seconds",), spec.after_seconds)
        at = self._text(("at",), spec.at)

        def make(identities: tuple[str, ...], scope: Scope) -> RunDeployment:
            name = run_name(scope)
            when = at(scope)
            return RunDeployment(
                rule=self._rule,
                identities=identities,
                deployment=deployment,
                parameters=parameters(scope),
                run_name=visible(name, RUN_NAME_LIMIT) if name else None,
                tags=tuple(visible(tag, 200) for tag in dict.fromkeys(render(scope) for render in tags) if tag),
                work_queue=work_queue(scope),
                job_variables=_without_references(job_variables(scope)),
                scheduled_seconds=after_seconds(scope) or 0,
                scheduled_at=None if when is None else _moment(when),
                ordinal=self._ordinal,
            )

        return make

    def _resume(self, spec: ResumeSpec) -> Callable[[tuple[str, ...], Scope], Action]:
        """Compile what the action says of its signal; the function returned renders it for given events."""
        key = self._text(("resume", "key"), spec.key)
        run_id = self._text(("resume", "run_id"), spec.run_id)
        input_ = self._mapping(("resume", "input"), spec.input)
        by = self._text(("resume", "by"), spec.by)
        reason = self._text(("resume", "reason"), spec.reason)
        ttl_seconds = self._seconds(("resume", "ttl_seconds"), spec.ttl_seconds)

        def make(identities: tuple[str, ...], scope: Scope) -> ResumeRun:
            return ResumeRun(
                rule=self._rule,
                identities=identities,
                key=key(scope),
                run_id=run_id(scope),
                input=input_(scope),
                action=spec.action,
                reason=reason(scope),
                by=by(scope),
                ttl_seconds=ttl_seconds(scope),
                deliver=spec.deliver,
                buffer=spec.buffer,
                ordinal=self._ordinal,
            )

        return make

    def _text(self, path: tuple[str | int, ...], source: str | None) -> Callable[[Scope], str | None]:
        if source is None:
            return lambda _: None
        template = self._compiled(path, lambda: TextTemplate(source, self._names))
        return template.render if template is not None else lambda _: None

    def _seconds(self, path: tuple[str | int, ...], source: float | str | None) -> Callable[[Scope], float | None]:
        if source is None:
            return lambda _: None
        template = self._compiled(path, lambda: ValueTemplate(source, self._names))
        if template is None:
            return lambda _: None
        return lambda scope: _number_of_seconds(path, template.render(scope))

    def _mapping(self, path: tuple[str | int, ...], source: JsonValue) -> Callable[[Scope], dict[str, JsonValue]]:
        template = self._compiled(path, lambda: ValueTemplate(source, self._names))
        if template is None:
            return lambda _: {}

        def render(scope: Scope) -> dict[str, JsonValue]:
            rendered = template.render(scope)
            if not isinstance(rendered, dict):
                raise RejectedEvent("template", f"`{_dotted(path)}` gave {kind(rendered)}, not a mapping")
            return rendered

        return render

    def _compiled(self, path: tuple[str | int, ...], compile_: Callable[[], T]) -> T | None:
        try:
            return compile_()
        except TemplateProblem as problem:
            self.problems += [((*path, *inside), message) for inside, message in problem.problems]
            return None


def _dotted(path: tuple[str | int, ...]) -> str:
    return ".".join(map(str, path))


def _number_of_seconds(path: tuple[str | int, ...], value: JsonValue) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LONGEST_WINDOW_SECONDS:
        raise RejectedEvent(
            "template", f"`{_dotted(path)}` gave {value!r}, not between 0 and {LONGEST_WINDOW_SECONDS} seconds"
        )
    return float(value)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise RejectedEvent("template", f"`at` gave {text[:80]!r}, not an ISO 8601 time") from None
    if moment.tzinfo is None:
        raise RejectedEvent(
            "template", f"`at` gave {text[:80]!r}, a time without its zone: write Z or +02:00 behind it"
        )
    return moment


def _without_references(job_variables: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Refuse what a Prefect worker would replace: it resolves ``{{ prefect.blocks… }}`` in job variables."""
    if any(isinstance(part, str) and "{{" in part for part in parts_of(job_variables)):
        raise RejectedEvent("hydration", "`job_variables` hold '{{': a Prefect worker would fill in its own values")
    return job_variables
