"""Templates of rules: Jinja's expressions over an event, sandboxed, strict about what is missing, bounded in work.

A template is Jinja syntax narrowed to what always ends: expressions, and in texts ``{% if %}``. There are no loops, no
assignments, no calls; `events.filters` does the work that those would do. ``a.b`` reads a key of a mapping and nothing
else, so no Python attribute is within reach. What an event holds is only ever a value, never template code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from jinja2 import Template, TemplateSyntaxError, nodes
from pydantic import JsonValue

from events.errors import RejectedEvent
from events.event import Event
from events.filters.bounds import LONGEST_TEXT, Fault, bounded, kind, present, spend_deep
from events.sandbox import ENVIRONMENT, RunningTemplate
from events.template_check import Names, TemplateProblem, check, narrowed
from events.untrusted_json import parts_of, refuse_hydration

LONGEST_TEMPLATE: Final = 8192

_MOST_EXPLAINED: Final = 4
"""Paths of one expression whose values are told."""

View = dict[str, Any]


def view(event: Event) -> View:
    """The event as templates see it."""
    return {
        "specversion": event.specversion,
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "time": event.time.isoformat(),
        "data": event.data,
        "extensions": event.extensions,
    }


class Expression:
    """One compiled Jinja expression; `value` may be called any number of times and keeps nothing."""

    __slots__ = ("_explained", "_root", "source")

    def __init__(self, source: str, names: Names) -> None:
        """Raises `TemplateProblem` with everything that is wrong with ``source``."""
        self.source = source
        self._root, paths = _compile_expression(source, _parse_expression(source), names)
        self._explained = tuple((f"{'.'.join(path)} = ", path) for path in paths[:_MOST_EXPLAINED])

    def value(self, scope: Mapping[str, Any]) -> Any:
        """The native result over ``scope``; raises `RejectedEvent` (code ``template``) where there is none."""
        try:
            return present(_result(self._root, RunningTemplate(scope)))
        except Exception as error:  # whatever an event does to a template is told, never raised through
            raise _rejected(self.source, error) from error

    def explain(self, scope: Mapping[str, Any]) -> str:
        """The values behind the paths that the expression reads: ``event.data.size = 0, event.subject = null``."""
        return ", ".join([label + _shown(scope, path) for label, path in self._explained])


class TextTemplate:
    """A template whose result is always text."""

    __slots__ = ("_root", "source")

    def __init__(self, source: str, names: Names) -> None:
        """Raises `TemplateProblem` with everything that is wrong with ``source``."""
        self.source = source
        self._root = _compile_text(source, names)

    def render(self, scope: Mapping[str, Any]) -> str:
        """The text over ``scope``; raises `RejectedEvent` (code ``template``)."""
        try:
            running = RunningTemplate(scope)
            pieces = []
            for piece in self._root(running):
                running.spend(len(piece))
                pieces.append(piece)
            rendered = "".join(pieces)
            if len(rendered) > LONGEST_TEXT:
                raise Fault(f"the text has {len(rendered)} characters")  # noqa: TRY301 - told like every other fault
        except Exception as error:
            raise _rejected(self.source, error) from error
        return rendered


class ValueTemplate:
    """A JSON value with templates at any depth.

    A string that is one expression and nothing else (``"{{ event.data.size }}"``) keeps the type of its result; any
    other string with template marks becomes text; everything else stays what it is. Keys are never templates.
    """

    __slots__ = ("_render",)

    def __init__(self, value: JsonValue, names: Names) -> None:
        """Raises `TemplateProblem`, each problem behind its path inside ``value``."""
        problems: list[tuple[tuple[str | int, ...], str]] = []
        self._render = _compile_value(value, names, (), problems)
        if problems:
            raise TemplateProblem(*problems)

    def render(self, scope: Mapping[str, Any]) -> JsonValue:
        """The value over ``scope``; raises `RejectedEvent` (``template``, or ``hydration`` for Prefect's key)."""
        rendered = self._render(scope)
        refuse_hydration(rendered)
        return rendered


_Render = Callable[[Mapping[str, Any]], JsonValue]


def _compile_value(
    value: JsonValue, names: Names, path: tuple[str | int, ...], problems: list[tuple[tuple[str | int, ...], str]]
) -> _Render:
    """Return what renders a value of the rule, with the templates in it compiled; problems are collected with paths."""
    if isinstance(value, str) and is_template(value):
        try:
            return _compile_string(value, names)
        except TemplateProblem as problem:
            problems += [(path, message) for _, message in problem.problems]
    elif isinstance(value, dict):
        for key in value:
            if is_template(key):
                problems.append(((*path, key), f"the key {key!r} is a template: only values may be"))
        entries = [(key, _compile_value(item, names, (*path, key), problems)) for key, item in value.items()]
        return lambda scope: {key: render(scope) for key, render in entries}
    elif isinstance(value, list):
        renders = [_compile_value(item, names, (*path, index), problems) for index, item in enumerate(value)]
        return lambda scope: [render(scope) for render in renders]
    return lambda _: value


def _compile_string(source: str, names: Names) -> _Render:
    """Return what renders a template: to any value if it is one expression alone, otherwise to text."""
    tree = _parse_text(source)
    alone = _only_expression(tree)
    if alone is None:
        return TextTemplate(source, names).render
    root, _ = _compile_expression(source, alone, names)

    def render(scope: Mapping[str, Any]) -> JsonValue:
        try:
            running = RunningTemplate(scope)
            result: JsonValue = _result(root, running)
            spend_deep(running, result)
            return _json(result)
        except Exception as error:
            raise _rejected(source, error) from error

    return render


def is_template(source: str) -> bool:
    """Whether the string holds any of Jinja's marks."""
    return "{{" in source or "{%" in source or "{#" in source


def _result(root: Callable[[Any], Iterator[str]], running: RunningTemplate) -> Any:
    next(root(running), None)  # an assignment yields nothing: this runs it to its end
    return running.vars["result"]


def _parse_expression(source: str) -> nodes.Expr:
    _measure(source)
    if source.lstrip().startswith(("{{", "{%")):
        raise TemplateProblem(((), f"{source!r} is not one expression: write it without {{{{ }}}}"))
    # Parenthesised, so that nothing but one expression fits in; an unfinished one is then reported as such.
    try:
        parser = ENVIRONMENT._parse  # noqa: SLF001 - as `compile_expression` does, without compiling yet
        found = _only_expression(parser("{{ (" + source + "\n) }}", None, None))
    except (TemplateSyntaxError, RecursionError) as error:
        raise _unreadable(source, error) from None
    if found is None or not source.strip():
        raise TemplateProblem(((), f"{source!r} is not one expression"))
    return found


def _parse_text(source: str) -> nodes.Template:
    _measure(source)
    try:
        return ENVIRONMENT.parse(source)
    except (TemplateSyntaxError, RecursionError) as error:
        raise _unreadable(source, error) from None


def _measure(source: str) -> None:
    if len(source) > LONGEST_TEMPLATE:
        raise TemplateProblem(((), f"the template has {len(source)} characters; at most {LONGEST_TEMPLATE} are taken"))


def _unreadable(source: str, error: Exception) -> TemplateProblem:
    said = error.message if isinstance(error, TemplateSyntaxError) else "it nests too deeply"
    return TemplateProblem(((), f"{source!r} is not a Jinja template: {said}"))


def _only_expression(tree: nodes.Template) -> nodes.Expr | None:
    match tree.body:
        case [nodes.Output(nodes=[nodes.TemplateData()])]:
            return None
        case [nodes.Output(nodes=[only])]:
            return only
    return None


def _compile_expression(
    source: str, expression: nodes.Expr, names: Names
) -> tuple[Callable[[Any], Iterator[str]], tuple[tuple[str, ...], ...]]:
    paths = check(source, expression, names)
    assign = nodes.Assign(nodes.Name("result", "store"), narrowed(expression), lineno=1)
    return _root(source, nodes.Template([assign], lineno=1)), paths


def _compile_text(source: str, names: Names) -> Callable[[Any], Iterator[str]]:
    tree = _parse_text(source)
    check(source, tree, names)
    return _root(source, narrowed(tree))


def _root(source: str, tree: nodes.Template) -> Callable[[Any], Iterator[str]]:
    try:
        code = ENVIRONMENT.compile(tree)
        return Template.from_code(ENVIRONMENT, code, {}).root_render_func
    except (TemplateSyntaxError, RecursionError, SyntaxError, MemoryError) as error:
        raise _unreadable(source, error) from None


def _rejected(source: str, error: Exception) -> RejectedEvent:
    if isinstance(error, RejectedEvent):
        return error
    said = "the data nests too deeply" if isinstance(error, RecursionError) else str(error) or type(error).__name__
    return RejectedEvent("template", f"{source!r}: {said}")


def _json(value: Any) -> JsonValue:
    """``value`` if JSON can carry it (its parts have been walked before); raises `Fault`."""
    for part in parts_of(value):
        if isinstance(part, int | float):
            bounded(part)
        elif part is not None and not isinstance(part, str | list | dict):
            raise Fault(f"the result holds a {type(part).__name__}, which JSON cannot carry")
    return value  # type: ignore[no-any-return]


def _shown(value: Any, path: tuple[str, ...]) -> str:
    for name in path:
        if type(value) is not dict or name not in value:
            return "(missing)"
        value = value[name]
    if isinstance(value, str):
        return repr(value[:80])
    if isinstance(value, list | dict):
        return f"{kind(value)} of {len(value)}"
    return _CONSTANTS[value] if value is None or isinstance(value, bool) else repr(value)


_CONSTANTS: Final = {None: "null", True: "true", False: "false"}
