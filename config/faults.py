"""Describes pydantic's errors for the author of a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from config.yaml_file import KeyPath
from events.suggest import did_you_mean

_WORDS: Final = {
    "string_type": "write text, in quotes where it looks like a number",
    "tuple_type": "write a list",
    "list_type": "write a list",
    "dict_type": "write a mapping",
    "model_type": "write a mapping",
    "bool_type": "write true or false",
    "bool_parsing": "write true or false",
    "int_type": "write a whole number",
    "int_parsing": "write a whole number",
    "int_from_float": "write a whole number",
    "float_type": "write a number",
    "float_parsing": "write a number",
}

_PATTERNS: Final = {
    "run": "write it as flow-name/deployment-name (a deployment is never a template)",
    "name": "a rule's name has letters, digits, '.', '_' and '-', at most 100, the first a letter or digit",
    "all": "a kind's name has lower-case letters, digits and '_', the first a letter",
}


def describe(error: ValidationError, model: type[BaseModel]) -> Iterator[tuple[KeyPath, str]]:
    """Return each error as its key and a sentence with the fix."""
    seen: set[tuple[KeyPath, str]] = set()
    for fault in error.errors(include_url=False):
        one = _described(fault, model)
        if one not in seen:
            seen.add(one)
            yield one


def _described(fault: ErrorDetails, model: type[BaseModel]) -> tuple[KeyPath, str]:
    key, holder = _follow(fault["loc"], model)
    kind = fault["type"]
    last = str(key[-1]) if key else ""
    if kind == "extra_forbidden" and holder is not None:
        return key, f"unknown key — {did_you_mean(last, _keys(holder))}"
    if kind == "missing":
        return key[:-1], f"the key {last!r} is missing"
    if kind == "value_error":
        return key, fault["msg"].removeprefix("Value error, ")
    if kind == "literal_error":
        expected = fault.get("ctx", {}).get("expected", "")
        return key, f"{_shown(fault['input'])} is not known — write {expected}"
    if kind == "string_pattern_mismatch":
        word = next((_PATTERNS[str(part)] for part in reversed(key) if str(part) in _PATTERNS), fault["msg"])
        return key, f"{_shown(fault['input'])} does not fit — {word}"
    return key, f"{_shown(fault['input'])} does not fit — {_WORDS.get(kind, _lowered(fault['msg']))}"


def _follow(location: tuple[int | str, ...], model: type[BaseModel]) -> tuple[KeyPath, type[BaseModel] | None]:
    """The location without pydantic's own remarks, and the model that its last key is looked for in."""
    key: list[int | str] = []
    current: Any = model
    holder: type[BaseModel] | None = None
    for part in location:
        if part == "[key]":
            continue
        key.append(part)
        if isinstance(part, int):
            continue  # of a list, whose items are of the model that is looked into
        if isinstance(current, type) and issubclass(current, BaseModel):
            holder = current
            found = _keys(current).get(str(part))
            current = _inner(found.annotation) if found is not None else getattr(current, "others", None)
    return tuple(key), holder


def _keys(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields as they are written."""
    return {one.alias or name: one for name, one in model.model_fields.items()}


def _inner(annotation: Any) -> Any:
    """The model inside an annotation such as ``tuple[Model, ...]``, ``dict[str, Model]`` or ``Model | None``."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return annotation if issubclass(annotation, BaseModel) else None
    return next((found for part in get_args(annotation) if (found := _inner(part)) is not None), None)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"  # noqa: PLR2004 - fits on a line


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]
