"""The form for the answer to a wait, from its JSON schema: plain HTML, with no decision preselected."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError, best_match

from sluice.protocol import GO_ON, addressed

_INPUTS: Final = {"date": "date", "date-time": "text", "email": "email", "uri": "url", "time": "time"}
_LONG_TEXT: Final = 200
_BOOLEANS: Final = {"true": True, "false": False}

Given = Mapping[str, str]


def fields_of(schema: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the fields of the answer, each with its resolved schema."""
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return {}
    return {name: _followed(schema, one) for name, one in properties.items() if name != GO_ON}


def form_of(schema: Mapping[str, Any], given: Given, faults: Mapping[str, str]) -> str:
    """Return the form's fields as HTML, with the values ``given`` before and their faults."""
    needed = _needed(schema)
    return "".join(
        _field(name, one, given.get(name), faults.get(name), required=name in needed)
        for name, one in fields_of(schema).items()
    )


def answer_of(schema: Mapping[str, Any], given: Given, *, pause: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the answer from the form's texts, and its faults by field ("" for the whole)."""
    value: dict[str, Any] = {}
    faults: dict[str, str] = {}
    required = _needed(schema)
    for name, one in fields_of(schema).items():
        text = given.get(name, "").replace("\r\n", "\n")
        if text == "" and not (one.get("type") == "string" and name in required and one.get("minLength") == 0):
            if name in required:
                faults[name] = "this is needed"
            continue
        try:
            value[name] = _read(one, text)
        except ValueError as error:
            faults[name] = str(error)
    if not faults:
        faults = dict(_unfit(schema, addressed(value, pause=pause, signal="-", key=None)))
    return value, faults


def _needed(schema: Mapping[str, Any]) -> set[str]:
    """Return the required fields, booleans with a default included: otherwise nobody would have chosen their value."""
    decides = {
        name
        for name, one in fields_of(schema).items()
        if one.get("type") == "boolean" or any(isinstance(choice, bool) for choice in _choices(one))
    }
    return decides | set(schema.get("required", ()))


def _unfit(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the faults of an answer by its JSON Schema, each with the field's name, or '' for the whole answer."""
    try:
        errors = list(Draft202012Validator(schema).iter_errors(whole))
    except (SchemaError, RecursionError):
        return  # Prefect validates the answer, too
    fields = fields_of(schema)
    for error in errors:
        place = str(error.absolute_path[0]) if error.absolute_path else ""
        yield (place if place in fields else "", _words(error))


def _words(error: ValidationError) -> str:
    return str((best_match([error]) or error).message)[:300]


def _followed(schema: Mapping[str, Any], one: Any) -> dict[str, Any]:
    """Return the field's schema without references, and without the alternative null."""
    found: dict[str, Any] = dict(one) if isinstance(one, Mapping) else {}
    for _ in range(10):
        if isinstance(found.get("$ref"), str):
            target: Any = schema
            for part in found.pop("$ref").removeprefix("#/").split("/"):
                target = target.get(part, {}) if isinstance(target, Mapping) else {}
            found = {**dict(target if isinstance(target, Mapping) else {}), **found}
            continue
        choices = [one for one in found.get("anyOf", found.get("allOf", ())) if one != {"type": "null"}]
        if len(choices) == 1 and isinstance(choices[0], Mapping):
            found = {**choices[0], **{name: part for name, part in found.items() if name not in {"anyOf", "allOf"}}}
            continue
        break
    return found


def _choices(one: Mapping[str, Any]) -> Sequence[Any]:
    choices = one.get("enum")
    return choices if isinstance(choices, list) and choices else ()


def _read(one: Mapping[str, Any], text: str) -> Any:
    """Return the field's value from its text; raises `ValueError` with what is wrong."""
    if choices := _choices(one):
        for choice in choices:
            if json.dumps(choice) == text:
                return choice
        raise ValueError("choose one of those")
    match one.get("type"):
        case "string":
            return text
        case "boolean":
            if text not in _BOOLEANS:
                raise ValueError("choose yes or no")
            return _BOOLEANS[text]
        case "integer" | "number" as kind:
            try:
                return int(text) if kind == "integer" else _number(text)
            except ValueError:
                raise ValueError("write a whole number" if kind == "integer" else "write a number") from None
        case _:
            try:
                return json.loads(text)
            except (ValueError, RecursionError):
                raise ValueError("write JSON, such as [1, 2] or a text in double quotes") from None


def _number(text: str) -> float | int:
    found = float(text)
    if found - found != 0:
        raise ValueError("infinite")
    return int(found) if found == int(found) and abs(found) < 2**53 and "." not in text else found


def _field(name: str, one: Mapping[str, Any], given: str | None, fault: str | None, *, required: bool) -> str:
    """Return the HTML of one field of the answer: radio buttons for choices and booleans, otherwise an input."""
    title = escape(str(one.get("title") or name)) + ("" if required else ' <span class="said">(optional)</span>')
    said = f'<div class="said">{escape(str(one["description"]))}</div>' if one.get("description") else ""
    wrong = f'<div class="wrong" role="alert">{escape(fault)}</div>' if fault else ""
    attributes = f'name="{escape(name)}" id="{escape(name)}"' + (" required" if required else "")
    if choices := _choices(one):
        pairs = [(json.dumps(choice), _named(choice)) for choice in choices]
    elif one.get("type") == "boolean":
        pairs = [("true", _named(True)), ("false", _named(False))]
    else:
        inside = _input(one, attributes, _shown(one, given))
        return f'<p><label for="{escape(name)}">{title}</label>{said}{inside}{wrong}</p>'
    options = "".join(
        f'<div><label><input type="radio" name="{escape(name)}" value="{escape(value)}"'
        f"{' required' if required else ''}{' checked' if value == given else ''}> {escape(text)}</label></div>"
        for value, text in pairs
    )
    return f"<fieldset><legend>{title}</legend>{said}{options}{wrong}</fieldset>"


def _named(choice: Any) -> str:
    return ("Yes" if choice else "No") if isinstance(choice, bool) else str(choice)


def _input(one: Mapping[str, Any], attributes: str, shown: str) -> str:
    kind = one.get("type")
    if kind in {"integer", "number"}:
        step = "1" if kind == "integer" else "any"
        return f'<input type="number" step="{step}" {attributes} value="{escape(shown)}">'
    if kind == "string" and one.get("maxLength", _LONG_TEXT) <= _LONG_TEXT and "\n" not in shown:
        return f'<input type="{_INPUTS.get(str(one.get("format")), "text")}" {attributes} value="{escape(shown)}">'
    return f'<textarea rows="4" {attributes}>\n{escape(shown)}</textarea>'


def _shown(one: Mapping[str, Any], given: str | None) -> str:
    if given is not None:
        return given
    default = one.get("default")
    if default is None:
        return ""
    return default if isinstance(default, str) else json.dumps(default)
