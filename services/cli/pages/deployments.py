"""Output of `sluice deploy`: the steps that it takes or would take."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from services.cli.output import show_json, show_line, show_title
from sluice.display import visible

if TYPE_CHECKING:
    from services.deployments.plan import PlanStep

WIDTH: Final = 80
"""Characters at which details are wrapped."""

_PAST: Final = {
    "create": "created",
    "change": "changed",
    "unchanged": "unchanged",
    "remove": "removed",
    "pause": "paused",
    "leave": "left",
}


def show_steps(steps: Sequence[PlanStep], *, done: bool, as_json: bool) -> None:
    """Print a line for each deployment, and below it what changes and why; with ``as_json`` an array of objects.

    ``done`` says whether the steps were carried out, or are only a plan.
    """
    if as_json:
        show_json([step.as_row() for step in steps])
        return
    for step in steps:
        show_line(f"{_word(step, done=done):<9}  {step.deployment}")
        for detail in step.details:
            wrapped = textwrap.wrap(visible(detail), WIDTH, initial_indent=" " * 11, subsequent_indent=" " * 13)
            for text in wrapped:
                show_line(text)
    counts = Counter(_word(step, done=done) for step in steps)
    summary = ", ".join(f"{count} {word}" for word, count in counts.items()) or "no deployments"
    show_title(f"{summary}." if done else f"plan: {summary}. Nothing was done.")


def _word(step: PlanStep, *, done: bool) -> str:
    return _PAST[step.action] if done else step.action
