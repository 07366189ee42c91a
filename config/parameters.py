"""Checks that the rules give each deployment the parameters that its flow takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from config.project import Project
from events.rule import Rule
from events.suggest import did_you_mean
from events.template import is_template

_TYPES: Final = frozenset({"string", "integer", "number", "boolean", "array", "object", "null"})


@dataclass(frozen=True, slots=True)
class Signature:
    """A deployment's signature: the JSON Schema of its parameters, and those that it sets itself."""

    schema: Mapping[str, Any]
    defaults: frozenset[str] = frozenset()

    @property
    def properties(self) -> Mapping[str, Any]:
        """The parameters that the flow names."""
        found = self.schema.get("properties")
        return found if isinstance(found, Mapping) else {}

    @property
    def needs(self) -> list[str]:
        """The parameters that a run must be given."""
        return [name for name in self.schema.get("required") or [] if name not in self.defaults]

    @property
    def takes_others(self) -> bool:
        """Whether the flow takes parameters that it does not name (``**options``)."""
        return bool(self.schema.get("additionalProperties", False))


@dataclass(frozen=True, slots=True)
class ParameterFindings:
    """Errors refuse the rules; warnings name deployments that may still be registered."""

    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def check_parameters(project: Project, signatures: Mapping[str, Signature]) -> ParameterFindings:
    """Check every enabled rule against the existing deployments, by ``flow/deployment``."""
    errors: list[str] = []
    warnings: list[str] = []
    for rule in project.rules.rules:
        if not rule.spec.enabled:
            continue
        for key, run, parameters in _runs(rule):
            signature = signatures.get(run)
            if signature is None:
                hint = did_you_mean(run, signatures)
                where = project.where(rule.name, *key, "run")
                warnings.append(f"{where}: there is no deployment {run!r} yet ({hint}): its events wait for it")
            elif isinstance(parameters, dict):
                errors += [
                    f"{project.where(rule.name, *key, 'parameters', *inside)}: {said}"
                    for inside, said in _misfits(run, signature, parameters)
                ]
    return ParameterFindings(tuple(errors), tuple(warnings))


def _runs(rule: Rule) -> Iterator[tuple[tuple[str | int, ...], str, Any]]:
    for index, action in enumerate(rule.spec.actions):
        if action.run is not None:
            yield (("do", index) if rule.spec.do else ()), action.run, action.parameters


def _misfits(run: str, signature: Signature, parameters: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    properties = signature.properties
    for name, value in parameters.items():
        if name in properties:
            wanted = _wanted(properties[name], value)
            if wanted:
                yield (name,), f"{value!r} does not fit: {run} takes {wanted} here"
        elif not signature.takes_others:
            yield (name,), f"{run} takes no parameter {name!r} — {did_you_mean(name, properties)}"
    for name in signature.needs:
        if name not in parameters:
            yield (), f"{run} needs the parameter {name!r} — add it here, or give it a default in the flow"


def _wanted(schema: Any, value: Any) -> str | None:
    """The type that a plain schema wants, if ``value`` is of another; a template may give anything."""
    kind = str(schema.get("type")) if isinstance(schema, Mapping) else ""
    if kind not in _TYPES or (isinstance(value, str) and is_template(value)):
        return None
    from jsonschema import Draft202012Validator  # roles that check nothing start without it

    return None if Draft202012Validator({"type": kind}).is_valid(value) else kind
