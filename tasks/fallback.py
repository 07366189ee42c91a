"""The primary source, and the others in their order where it cannot be had."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from prefect import State, get_run_logger

from sluice import visible

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sourced(Generic[T]):
    """What was got, from where, and why not from the sources before that one."""

    value: T
    source: str
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def degraded(self) -> bool:
        """Whether it is not from the primary source."""
        return bool(self.failed)


def first_that_works(sources: Mapping[str, Callable[[], State[T]]]) -> Sourced[T]:
    """Ask the sources in their order, each with its own retries, until one is Completed.

    A source is called without arguments and returns a state: ``lambda: get_prices(url, return_state=True)``. Raises
    `RuntimeError` with every reason when none works.
    """
    failed: dict[str, str] = {}
    for name, source in sources.items():
        state = source()
        if state.is_completed():
            return Sourced(state.result(), name, failed)
        failed[name] = visible(str(state.message), 300)
        get_run_logger().warning("%s: %s", name, failed[name])
    raise RuntimeError("; ".join(f"{name}: {reason}" for name, reason in failed.items()))
