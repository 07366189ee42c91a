"""Readable names for runs without a name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from sluice.display import visible

_GENERATED: Final = re.compile(r"[a-z]+(-[a-z]+)+")
"""Prefect's generated names: ``amber-falcon``."""
_LONGEST: Final = 200


def run_name(template: str) -> Callable[[], str]:
    """Return a ``flow_run_name`` that names a run after its parameters, unless a rule or a person has named it.

    Prefect applies a flow's own ``flow_run_name`` to every run, even to one that was named when it was created: the
    ``run_name`` of a rule would be lost. ``template`` is for `str.format`, such as ``"order {order_id}"``.
    """

    def name() -> str:
        from prefect.runtime import flow_run

        present = flow_run.name or ""
        if any(tag.startswith("rule:") for tag in flow_run.tags) or (present and not _GENERATED.fullmatch(present)):
            return present
        return visible(template.format(**flow_run.parameters), _LONGEST)

    return name
