"""The filters and tests of templates: pure functions over JSON values, each bounded in time and size.

Every function takes the running template first and spends steps of its budget: as many as the value is long, so that no
template runs too long, whatever the event holds. No function reaches a Python attribute, a clock, a file or the
environment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from events.filters import lists, numbers, tests, texts

FILTERS: Final[Mapping[str, Callable[..., Any]]] = {**texts.FILTERS, **numbers.FILTERS, **lists.FILTERS}
TESTS: Final[Mapping[str, Callable[..., bool]]] = tests.TESTS
