"""Compiles the parts of a rule (globs, expressions, keys, actions) and gathers what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from events.action_template import ActionTemplate
from events.glob import Globs, glob_problem
from events.rule_model import ActionSpec
from events.template import Expression, TextTemplate, is_template
from events.template_check import Names, TemplateProblem

EVENT_KEYS: Final = frozenset({"specversion", "id", "source", "type", "subject", "time", "data", "extensions"})
"""What templates may ask of an event."""

OVER_EVENT: Final[Names] = {"event": EVENT_KEYS}


class RuleProblem(NamedTuple):
    """Something wrong in a rule: where inside it, and what, with the fix."""

    path: tuple[str | int, ...]
    message: str


class RuleProblems(ValueError):
    """A rule that cannot be used, with everything that is wrong in it."""

    def __init__(self, problems: Sequence[RuleProblem]) -> None:
        super().__init__("; ".join(problem.message for problem in problems))
        self.problems = tuple(problems)


class PartsCompiler:
    """Compiles the parts of one rule and gathers what is wrong with them."""

    def __init__(self) -> None:
        self.problems: list[RuleProblem] = []

    def globs(self, path: tuple[str | int, ...], patterns: Sequence[str]) -> Globs:
        wrong = [
            RuleProblem((*path, index) if len(patterns) > 1 else path, problem)
            for index, pattern in enumerate(patterns)
            if (problem := glob_problem(pattern))
        ]
        self.problems += wrong
        return Globs(("*",) if wrong else patterns)

    def expression(self, path: tuple[str | int, ...], source: str | None) -> Expression | None:
        if source is None:
            return None
        try:
            return Expression(source, OVER_EVENT)
        except TemplateProblem as problem:
            self._add(path, problem)
            return None

    def key(self, path: tuple[str | int, ...], source: str | None) -> TextTemplate | None:
        if source is None:
            return None
        if not is_template(source):
            self.problems.append(
                RuleProblem(path, f'{source!r} would be the same key for every event — write "{{{{ {source} }}}}"')
            )
            return None
        try:
            return TextTemplate(source, OVER_EVENT)
        except TemplateProblem as problem:
            self._add(path, problem)
            return None

    def action(
        self, path: tuple[str | int, ...], spec: ActionSpec, *, ordinal: int, rule: str, names: Names
    ) -> ActionTemplate:
        action = ActionTemplate(spec, rule=rule, ordinal=ordinal, names=names)
        self.problems += [RuleProblem((*path, *inside), message) for inside, message in action.problems]
        return action

    def _add(self, path: tuple[str | int, ...], problem: TemplateProblem) -> None:
        self.problems += [RuleProblem((*path, *inside), message) for inside, message in problem.problems]
