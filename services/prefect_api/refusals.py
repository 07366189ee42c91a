"""Explains to the sender why Prefect refused an answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from sluice.protocol import DELIVERY, GO_ON

_OF_A_FIELD: Final = re.compile(
    r"Validation failed for field (?P<field>'[^']+'|\"[^\"]+\")\. Failure reason: (?P<why>.*)", re.DOTALL
)
_OF_ANOTHER: Final = re.compile(
    rf"""Validation failed for field "\$\['{DELIVERY}'\]|"""
    rf"""Validation failed\. Failure reason: Unevaluated properties are not allowed \(('[^']*', )*'{DELIVERY}'"""
)
_OF_THE_WHOLE: Final = "Validation failed. Failure reason: "


def names_another_wait(reason: str) -> bool:
    """Whether Prefect refused an answer because it names another wait than the one that the run is in."""
    return _OF_ANOTHER.match(reason) is not None


def explained(reason: str, value: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Return Prefect's ``reason`` for refusing ``value`` in words, by the JSON ``schema`` of the wait's form."""
    fields = [name for name in schema.get("properties", {}) if name != GO_ON]
    given = [name for name in value if name != DELIVERY]
    faults = []
    if False in {schema.get("unevaluatedProperties"), schema.get("additionalProperties")}:
        faults = [f"there is no field {name!r}" for name in given if name not in fields]
        if faults:
            faults[-1] += f"; it has {', '.join(fields)}" if fields else "; the answer has no fields"
    faults += [f"the field {name!r} is missing" for name in schema.get("required", ()) if name not in value]
    if faults:
        return "; ".join(faults)
    of_a_field = _OF_A_FIELD.fullmatch(reason)
    if of_a_field:
        why = of_a_field["why"].replace("one of [True, False]", "true or false")
        return f"the field {of_a_field['field']}: {why}"
    return reason.removeprefix(_OF_THE_WHOLE)
