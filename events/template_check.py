"""What a template may consist of, found out from its syntax tree before it ever runs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

from jinja2 import nodes
from jinja2.visitor import NodeTransformer
from typing_extensions import override

from events.filters import FILTERS, TESTS
from events.suggest import did_you_mean

Names = Mapping[str, frozenset[str] | None]
"""The variables of a template; with each the keys it has, where they are known beforehand."""

CONCAT: Final = "sluice_concat"
SLICE: Final = "sluice_slice"

_ALLOWED: Final = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.Name, nodes.Getattr, nodes.Getitem, nodes.Slice,
    nodes.Const, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Compare, nodes.Operand, nodes.BinExpr,
    nodes.UnaryExpr, nodes.Concat, nodes.CondExpr, nodes.Filter, nodes.Test, nodes.Keyword,
)  # fmt: skip

_REFUSED: Final[Mapping[type[nodes.Node], str]] = {
    nodes.Call: "nothing can be called: use a filter (`event.data.name | upper`) or a test (`is startingwith('a')`)",
    nodes.For: "there are no loops: use the filters `map`, `select`, `join`",
    nodes.Assign: "there is no `set`: write the expression where it is used",
    nodes.Tuple: "there are no tuples: write a list in square brackets",
}

N = TypeVar("N", bound=nodes.Node)


class TemplateProblem(ValueError):
    """A template that cannot be used: each problem in words, behind its path inside the templated value."""

    def __init__(self, *problems: tuple[tuple[str | int, ...], str]) -> None:
        super().__init__("; ".join(message for _, message in problems))
        self.problems = problems


def check(source: str, tree: nodes.Node, names: Names) -> tuple[tuple[str, ...], ...]:
    """The paths that the template reads, such as ``("event", "data", "size")``, each once and the longest form of it.

    Raises `TemplateProblem` with everything in the tree that is not allowed or not known.
    """
    problems: list[str] = []
    paths: dict[tuple[str, ...], None] = {}
    inside: set[int] = set()
    for node in (tree, *_walk(tree)):
        problems += _problems_of(node, names)
        path = _path(node)
        if path is not None:
            if id(node) not in inside:
                paths.setdefault(path)
            inside.update(id(child) for child in _walk(node))
    if problems:
        raise TemplateProblem(*(((), f"{source!r}: {problem}") for problem in dict.fromkeys(problems)))
    return tuple(paths)


def narrowed(tree: N) -> N:
    """The tree with joining (``~``) and slicing led through functions that count their work."""
    narrow: N = _Narrow().visit(tree)
    return narrow


class _Narrow(NodeTransformer):
    @override
    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        node = self.generic_visit(node, *args, **kwargs)
        if isinstance(node, nodes.Concat):
            first, *rest = node.nodes
            return nodes.Filter(first, CONCAT, rest, [], None, None, lineno=node.lineno)
        if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
            bounds = [
                bound or nodes.Const(None, lineno=node.lineno)
                for bound in (node.arg.start, node.arg.stop, node.arg.step)
            ]
            return nodes.Filter(node.node, SLICE, bounds, [], None, None, lineno=node.lineno)
        return node


def _walk(node: nodes.Node) -> Iterator[nodes.Node]:
    for child in node.iter_child_nodes():
        yield child
        yield from _walk(child)


def _path(node: nodes.Node) -> tuple[str, ...] | None:
    match node:
        case nodes.Name(name=str(name)):
            return (name,)
        case nodes.Getattr(node=holder, attr=str(key)) | nodes.Getitem(node=holder, arg=nodes.Const(value=str(key))):
            before = _path(holder)
            return None if before is None else (*before, key)
    return None


def _problems_of(node: nodes.Node, names: Names) -> Iterator[str]:
    """Yield what is wrong with one node of a template: syntax that rules do not have, or an unknown name."""
    if isinstance(node, nodes.Tuple) or not isinstance(node, _ALLOWED):
        yield _REFUSED.get(type(node), f"`{type(node).__name__.lower()}` is not available in rules")
    match node:
        case nodes.Name(name=name) if name not in names:
            yield f"{name!r} is not known here: {did_you_mean(name, names)}"
        case nodes.Getattr() | nodes.Getitem():
            yield from _unknown_key(_path(node), names)
        case nodes.CondExpr(expr2=None):
            yield "an inline `if` needs its `else`"
        case nodes.Filter(name=name) if name not in FILTERS:
            yield f"there is no filter {name!r}: {did_you_mean(name, FILTERS)}"
        case nodes.Test(name=name) if name not in TESTS:
            yield f"there is no test {name!r}: {did_you_mean(name, TESTS)}"
        case nodes.Filter() | nodes.Test():
            yield from _arguments(node)


def _unknown_key(path: tuple[str, ...] | None, names: Names) -> Iterator[str]:
    if path is None or len(path) != 2:  # noqa: PLR2004 - a variable and its key
        return
    variable, key = path
    keys = names.get(variable)
    if keys is not None and key not in keys:
        known = [f"{variable}.{name}" for name in keys]
        yield f"there is no `{variable}.{key}`: {did_you_mean(f'{variable}.{key}', known)}"


def _arguments(node: nodes.Filter | nodes.Test) -> Iterator[str]:
    """Whether the filter or test takes the arguments that it is given, and names one that exists."""
    what = "filter" if isinstance(node, nodes.Filter) else "test"
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        yield f"the {what} {node.name!r} takes its arguments one by one, without `*`"
        return
    function = (FILTERS if isinstance(node, nodes.Filter) else TESTS)[node.name]
    given = (None,) * (2 + len(node.args))
    try:
        inspect.signature(function).bind(*given, **{str(keyword.key): None for keyword in node.kwargs})
    except TypeError as error:
        yield f"the {what} {node.name!r} is given the wrong arguments: {error}"
        return
    position, known, named = _NAMED.get(node.name, (0, {}, "")) if isinstance(node, nodes.Filter) else (0, {}, "")
    if known and len(node.args) > position:
        match node.args[position]:
            case nodes.Const(value=str(name)) if name in known:
                pass
            case nodes.Const(value=str(name)):
                yield f"there is no {named} {name!r}: {did_you_mean(name, known)}"
            case _:
                yield f"the name of the {named} in {node.name!r} must stand there as text"


# Which argument of these filters names a filter or test, counted from 0.
_NAMED: Final[Mapping[str, tuple[int, Mapping[str, Any], str]]] = {
    "map": (0, FILTERS, "filter"),
    "select": (0, TESTS, "test"),
    "reject": (0, TESTS, "test"),
    "selectattr": (1, TESTS, "test"),
    "rejectattr": (1, TESTS, "test"),
}
