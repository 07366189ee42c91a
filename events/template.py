"""Templates of rules: Jinja's expressions over an event, sandboxed, strict about what is missing, bounded in work.

A template is Jinja syntax narrowed to what always ends: expressions, and in texts ``{% if %}``. There are no loops, no
assignments, no calls; `events.filters` does the work that those would do. ``a.b`` reads a key of a mapping and nothing
else, so no Python attribute is within reach. What an event holds is only ever a value, never template code.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, Undefined, nodes, pass_context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import JsonValue
from typing_extensions import override

from events.errors import RejectedEvent
from events.event import Event, refuse_hydration
from events.filters import FILTERS, LONGEST_TEXT, TESTS, Fault, bounded, joined, kind, part, spend_deep, text
from events.suggest import did_you_mean
from events.template_check import CONCAT, SLICE, Names, TemplateProblem, check, narrowed

MOST_STEPS: Final = 20_000_000
"""The work of one template in units of one character or item looked at: about a second."""

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
            return _run(self._root, scope)
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
            running = _Running(scope)
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
    tree = _parse_text(source)
    alone = _only_expression(tree)
    if alone is None:
        return TextTemplate(source, names).render
    root, _ = _compile_expression(source, alone, names)

    def render(scope: Mapping[str, Any]) -> JsonValue:
        try:
            running = _Running(scope)
            result: JsonValue = _result(root, running)
            spend_deep(running, result)
            return _json(result)
        except Exception as error:
            raise _rejected(source, error) from error

    return render


def is_template(source: str) -> bool:
    """Whether the string holds any of Jinja's marks."""
    return "{{" in source or "{%" in source or "{#" in source


class _Running:
    """What Jinja's compiled code asks of its context, and the account of the work done so far."""

    __slots__ = ("_left", "resolve_or_missing", "vars")

    exported_vars: Final[set[str]] = set()
    """Names that other templates could import, which none does: the compiled code insists on noting them."""

    def __init__(self, scope: Mapping[str, Any]) -> None:
        self.vars: dict[str, Any] = {}
        self.resolve_or_missing = scope.__getitem__
        self._left = MOST_STEPS

    def spend(self, amount: int) -> None:
        self._left -= amount
        if self._left < 0:
            raise Fault(f"it takes more than {MOST_STEPS} steps of work")


class _Missing(StrictUndefined):
    """What is not there; says where it was looked for and what is there instead."""

    __slots__ = ()

    @property
    @override
    def _undefined_message(self) -> str:
        holder, name = self._undefined_obj, self._undefined_name
        if isinstance(holder, dict):
            return f"there is no key {name!r} ({did_you_mean(str(name), map(str, list(holder)[:50]))})"
        if isinstance(holder, list | str):
            return f"there is no element {name!r} in {kind(holder)} of {len(holder)}"
        return f"{name!r} was looked for in {kind(holder)}, which has no keys"


class _RuleEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, narrowed: keys instead of attributes, nothing callable, arithmetic with bounds."""

    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%", "**"])
    intercepted_unops = frozenset(["+", "-"])

    @override
    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is dict:
            try:
                return obj[attribute]
            except KeyError:
                pass
        elif isinstance(obj, Undefined):
            return obj  # the first missing step is the one to tell of
        return _Missing(obj=obj, name=attribute)

    @override
    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, list | str) and isinstance(argument, int):
            try:
                return obj[argument]
            except IndexError:
                return _Missing(obj=obj, name=str(argument))
        if isinstance(argument, Undefined):
            str(argument)
        return self.getattr(obj, argument)

    @override
    def call(self, *_: Any, **__: Any) -> Any:
        raise Fault("nothing can be called in a template")

    @override
    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        for side in (left, right):
            if isinstance(side, Undefined):
                str(side)
        if operator == "+" and type(left) is type(right) and isinstance(left, str | list):
            if len(left) + len(right) > LONGEST_TEXT:
                raise Fault("the sum would be too long")
            context.spend(len(left) + len(right))
            return left + right
        if not (isinstance(left, int | float) and isinstance(right, int | float)):
            raise Fault(f"`{operator}` takes numbers, not {kind(left)} and {kind(right)} (texts are joined by `~`)")
        if operator == "**" and not (abs(left) <= 2**32 and abs(right) <= 64):  # noqa: PLR2004 - far above any use
            raise Fault("`**` takes a base up to 2**32 and an exponent up to 64")
        result = _ARITHMETIC[operator](left, right)
        if isinstance(result, complex):
            raise Fault("`**` of a negative number has no real result")
        return bounded(result)

    @override
    def call_unop(self, context: Any, operator: str, arg: Any) -> Any:
        if not isinstance(arg, int | float):
            raise Fault(f"`{operator}` takes a number, not {kind(arg)}")
        return -arg if operator == "-" else +arg


_ARITHMETIC: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": operator.pow,
}


def _environment() -> _RuleEnvironment:
    # Not optimized: nothing of a template is evaluated before it runs, where its work is counted.
    environment = _RuleEnvironment(undefined=_Missing, optimized=False, finalize=text, cache_size=0)
    environment.globals.clear()
    environment.filters = {name: pass_context(filter_) for name, filter_ in FILTERS.items()}
    environment.filters |= {CONCAT: pass_context(joined), SLICE: pass_context(part)}
    environment.tests = {name: pass_context(test) for name, test in TESTS.items()}
    return environment


_ENVIRONMENT: Final = _environment()


def _run(root: Callable[[Any], Iterator[str]], scope: Mapping[str, Any]) -> Any:
    return _result(root, _Running(scope))


def _result(root: Callable[[Any], Iterator[str]], running: _Running) -> Any:
    next(root(running), None)  # an assignment yields nothing: this runs it to its end
    return running.vars["result"]


def _parse_expression(source: str) -> nodes.Expr:
    _measure(source)
    # Parenthesised, so that nothing but one expression fits in; an unfinished one is then reported as such.
    try:
        parser = _ENVIRONMENT._parse  # noqa: SLF001 - as `compile_expression` does, without compiling yet
        found = _only_expression(parser("{{ (" + source + "\n) }}", None, None))
    except (TemplateSyntaxError, RecursionError) as error:
        raise _unreadable(source, error) from None
    if found is None or is_template(source):
        raise TemplateProblem(((), f"{source!r} is not one expression: write it without {{{{ }}}}"))
    return found


def _parse_text(source: str) -> nodes.Template:
    _measure(source)
    try:
        return _ENVIRONMENT.parse(source)
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
        code = _ENVIRONMENT.compile(tree)
        return Template.from_code(_ENVIRONMENT, code, {}).root_render_func
    except (TemplateSyntaxError, RecursionError, SyntaxError, MemoryError) as error:
        raise _unreadable(source, error) from None


def _rejected(source: str, error: Exception) -> RejectedEvent:
    if isinstance(error, RejectedEvent):
        return error
    said = "the data nests too deeply" if isinstance(error, RecursionError) else str(error) or type(error).__name__
    return RejectedEvent("template", f"{source!r}: {said}")


def _json(value: Any) -> JsonValue:
    """``value`` if JSON can carry it (its parts have been walked before); raises `Fault`."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        match one:
            case bool() | None | str():
                pass
            case int() | float():
                bounded(one)
            case list():
                waiting += one
            case dict():
                waiting += one.values()
            case _:
                raise Fault(f"the result holds a {type(one).__name__}, which JSON cannot carry")
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
