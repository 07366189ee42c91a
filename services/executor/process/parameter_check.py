"""Checks whether a flow takes the parameters of its run, and describes in a sentence why not."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import Flow

from events.suggest import did_you_mean

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def parameter_problem(flow: Flow[..., Any], given: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the names of the parameters ``given``; Prefect checks their types."""
    takes = inspect.signature(flow.fn).parameters
    if any(parameter.kind in _VARIADIC for parameter in takes.values()):
        return None
    where = f"The flow {flow.name!r} ({_place(flow)})"
    unknown = [name for name in given if name not in takes]
    if unknown and not takes:
        return f"{where} takes no parameters, and the run gives it {unknown[0]!r}."
    if unknown:
        name, names = unknown[0], ", ".join(takes)
        return f"{where} takes no parameter {name!r}: {did_you_mean(name, takes)} Its parameters: {names}."
    missing = [
        name for name, parameter in takes.items() if parameter.default is inspect.Parameter.empty and name not in given
    ]
    if missing:
        return f"{where} needs the parameter {missing[0]!r}, which the run does not have."
    return None


def _place(flow: Flow[..., Any]) -> str:
    function = inspect.unwrap(flow.fn)
    code = getattr(function, "__code__", None)
    if code is None:
        return flow.name
    return f"{Path(code.co_filename).resolve()}, line {code.co_firstlineno}"
