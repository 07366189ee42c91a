"""The sandbox that templates run in: Jinja's own, narrowed to keys, bounded arithmetic and counted work."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

from jinja2 import StrictUndefined, Undefined, pass_context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from typing_extensions import override

from events.filters import FILTERS, TESTS
from events.filters.bounds import LONGEST_TEXT, Fault, bounded, joined, kind, present, text
from events.filters.lists import part
from events.suggest import did_you_mean
from events.template_check import CONCAT, SLICE

MOST_STEPS: Final = 20_000_000
"""The work of one template in units of one character or item looked at: about a second."""


class RunningTemplate:
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

    def filter_named(self, name: str) -> Callable[..., Any]:
        return FILTERS[name]

    def test_named(self, name: str) -> Callable[..., bool]:
        return TESTS[name]


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


class RuleEnvironment(ImmutableSandboxedEnvironment):
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
        return self.getattr(obj, present(argument))

    @override
    def call(self, *_: Any, **__: Any) -> Any:
        raise Fault("nothing can be called in a template")

    @override
    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute a binary operation within the limits of rules: on numbers, and `+` on short texts and lists.

        A power or a long sum could otherwise take all memory or time of the router.
        """
        if operator == "+" and type(left) is type(right) and isinstance(left, str | list):
            if len(left) + len(right) > LONGEST_TEXT:
                raise Fault("the sum would be too long")
            context.spend(len(left) + len(right))
            return left + right
        if not (isinstance(present(left), int | float) and isinstance(present(right), int | float)):
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


def _environment() -> RuleEnvironment:
    # Not optimized: nothing of a template is evaluated before it runs, where its work is counted.
    environment = RuleEnvironment(undefined=_Missing, optimized=False, finalize=text, cache_size=0)
    environment.globals.clear()
    environment.filters = {name: pass_context(filter_) for name, filter_ in FILTERS.items()}
    environment.filters |= {CONCAT: pass_context(joined), SLICE: pass_context(part)}
    environment.tests = {name: pass_context(test) for name, test in TESTS.items()}
    return environment


ENVIRONMENT: Final = _environment()
