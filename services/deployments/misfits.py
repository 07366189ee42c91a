"""Whether the options of a flow file fit a flow: the parameters that they name, their values, what a schedule needs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from prefect import Flow
from prefect.utilities.schema_tools.validation import validate
from pydantic import TypeAdapter, ValidationError

from config.parameters import Signature
from config.yaml_file import KeyPath
from events.suggest import did_you_mean
from services.deployments.options import Options


def misfits(options: Options, flow: Flow[..., Any], schema: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Each key that does not fit the flow, whose parameters have this JSON Schema, and why."""
    signature = Signature(schema, frozenset(options.parameters))
    for name, value in options.parameters.items():
        key: KeyPath = ("parameters", name)
        if name in signature.properties:
            yield from ((key, what) for what in _wrong_values(flow, name, value, schema))
        elif not signature.takes_others:
            near = did_you_mean(name, signature.properties)
            yield key, f"the flow {flow.name!r} takes no parameter {name!r} — {near}"
    if options.schedules():
        for name in signature.needs:
            said = f"its runs would lack the parameter {name!r} that the flow {flow.name!r} needs — "
            fix = "add it under `parameters`, or give it a default in the flow"
            yield ("cron" if options.cron is not None else "interval_seconds",), said + fix


def _wrong_values(flow: Flow[..., Any], name: str, value: Any, schema: Mapping[str, Any]) -> Iterator[str]:
    """Why Prefect's server would refuse the value, or else the flow itself at its start."""
    prefix = f"{value!r} does not fit the parameter {name!r} of the flow {flow.name!r}: "
    refused = [error.message for error in validate({name: value}, dict(schema), ignore_required=True)]
    if not refused and flow.should_validate_parameters:
        refused = _mistyped(flow, name, value)
    yield from (prefix + what for what in refused[:1])


def _mistyped(flow: Flow[..., Any], name: str, value: Any) -> list[str]:
    """Return why a value does not fit the annotation of a flow's parameter; nothing if pydantic cannot evaluate it."""
    try:
        parameter = inspect.signature(flow.fn, eval_str=True).parameters[name]
        if parameter.kind in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}:
            return []  # the annotation is that of one of many
        adapter = TypeAdapter(parameter.annotation)
    except Exception:  # noqa: BLE001 - an annotation that pydantic cannot evaluate: the schema has decided
        return []
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        return [one["msg"][:1].lower() + one["msg"][1:] for one in error.errors()]
    return []
