"""How long a task is tried again, and after which errors: three policies, each for a kind of work.

``@task(**NETWORK)`` takes one; ``task.with_options(**UPLOAD)`` gives a task that is there another one. The pauses grow
and vary, so that many runs that failed together do not come back together.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, Final, TypedDict

import httpx
from prefect import State, Task
from prefect.client.schemas.objects import TaskRun
from prefect.tasks import exponential_backoff

Condition = Callable[[Task[..., Any], TaskRun, State[Any]], bool]


NAMES_AND_SIZES: Final = frozenset({errno.ENAMETOOLONG, errno.EMSGSIZE, errno.ENOSYS})
"""What a storage says of a name or an object that is too large for it, and of what it cannot do."""


class Unavailable(RuntimeError):
    """The other side did not answer, or answered that it cannot now: another try may bring something else."""


class RetryPolicy(TypedDict):
    """The arguments of ``@task`` that decide on another try."""

    retries: int
    retry_delay_seconds: Callable[[int], list[float]]
    retry_jitter_factor: float
    retry_condition_fn: Condition


def _network(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    return isinstance(state.data, Unavailable | httpx.TransportError | ConnectionError | TimeoutError)


def _database(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    from sqlalchemy.exc import InterfaceError, OperationalError  # heavy, and only asked for after a failure

    return isinstance(state.data, Unavailable | OperationalError | InterfaceError)


def _upload(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    never = FileNotFoundError | FileExistsError | PermissionError | IsADirectoryError | NotADirectoryError
    if isinstance(state.data, never) or getattr(state.data, "errno", None) in NAMES_AND_SIZES:
        return False
    return isinstance(state.data, Unavailable | OSError | httpx.TransportError)


NETWORK: Final[RetryPolicy] = {
    "retries": 4,
    "retry_delay_seconds": exponential_backoff(1),
    "retry_jitter_factor": 1.0,
    "retry_condition_fn": _network,
}
"""A call of another service: five tries in about a quarter of a minute."""

DATABASE: Final[RetryPolicy] = {
    "retries": 5,
    "retry_delay_seconds": exponential_backoff(5),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": _database,
}
"""A lock, a failover, a restart: six tries in about two and a half minutes. A broken constraint is not tried again."""

UPLOAD: Final[RetryPolicy] = {
    "retries": 8,
    "retry_delay_seconds": exponential_backoff(15),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": _upload,
}
"""A large transfer, which nobody wants to begin by hand: nine tries in about an hour."""
