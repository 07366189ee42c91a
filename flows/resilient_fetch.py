"""Fetch a URL into a file in spite of a server that fails now and then, without adding to its troubles.

A failing server is tried again after pauses that grow and vary. One that goes on failing is left alone for a while by
every run, on whichever machine: the circuit breaker's state is a Prefect variable, ``circuit_<host>``.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from prefect import State, Task, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.states import Completed
from prefect.tasks import exponential_backoff
from prefect.variables import Variable
from pydantic import AwareDatetime, BaseModel

FAILURES_TO_OPEN: Final = 3
"""Runs in a row that gave up on a host before its circuit opens."""
TOO_MANY_REQUESTS: Final = 429


class CircuitOpen(RuntimeError):
    """The host failed too often lately; it was not asked."""


class Unavailable(RuntimeError):
    """The server did not answer, or answered that it cannot now: worth another try."""


class Circuit(BaseModel):
    """What the runs know together about one host."""

    failures: int = 0
    opened_at: AwareDatetime | None = None

    def check(self, host: str, now: datetime, rest: timedelta) -> None:
        """Raise `CircuitOpen` while the host is left alone; after ``rest`` one run may try it again."""
        if self.opened_at is not None and now < self.opened_at + rest:
            again = (self.opened_at + rest).isoformat(timespec="seconds")
            raise CircuitOpen(f"{host} failed in {self.failures} runs in a row and is left alone until {again}")

    def after_failure(self, now: datetime) -> Circuit:
        """One run more gave up."""
        failures = self.failures + 1
        return Circuit(failures=failures, opened_at=now if failures >= FAILURES_TO_OPEN else None)


def variable_name(host: str) -> str:
    """The Prefect variable that holds the circuit of ``host``."""
    return "circuit_" + re.sub(r"[^a-z0-9]+", "_", host.lower()).strip("_")


def _worth_another_try(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    return isinstance(state.data, Unavailable)


@task(
    retries=4,
    retry_delay_seconds=exponential_backoff(1),
    retry_jitter_factor=1,
    retry_condition_fn=_worth_another_try,
    cache_policy=NO_CACHE,
)
def download(url: str, target: Path, most_bytes: int) -> dict[str, Any]:
    """Stream the body into ``target``, which appears only when it is complete."""
    digest, size = hashlib.sha256(), 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".", suffix=".part", delete=False) as part:
        draft = Path(part.name)
        try:
            with httpx.stream("GET", url, timeout=30, follow_redirects=True) as response:
                if response.is_server_error or response.status_code == TOO_MANY_REQUESTS:
                    raise Unavailable(f"{url} answered {response.status_code} {response.reason_phrase}")
                if response.is_error:
                    raise ValueError(f"{url} answered {response.status_code} {response.reason_phrase}: not tried again")
                for chunk in response.iter_bytes():
                    size += len(chunk)
                    if size > most_bytes:
                        raise ValueError(f"{url} sends more than {most_bytes} bytes: raise most_bytes if that is right")
                    digest.update(chunk)
                    part.write(chunk)
            part.flush()
            os.fsync(part.fileno())
            draft.replace(target)
        except httpx.TransportError as error:
            raise Unavailable(f"{url} did not answer: {type(error).__name__} {error}") from error
        finally:
            draft.unlink(missing_ok=True)
    return {"file": str(target), "bytes": size, "sha256": digest.hexdigest()}


@flow(name="resilient-fetch")
def resilient_fetch(
    url: str,
    target: str | None = None,
    most_bytes: int = 1024**3,
    first_pause_seconds: float = 1.0,
    rest_seconds: float = 60.0,
) -> State[dict[str, Any]]:
    """Fetch ``url`` into the file ``target`` (by default under ``fetched/`` of ``SLUICE_HOME``).

    Five attempts, with pauses that begin at ``first_pause_seconds``, double, and vary. After three runs in a row that
    gave up on the host, runs fail at once for ``rest_seconds``.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"{url!r} is not an http or https URL")
    home = Path(os.environ.get("SLUICE_HOME", ".sluice")).resolve()
    path = Path(target) if target else home / "fetched" / (Path(parts.path).name or parts.hostname)
    variable = variable_name(parts.netloc.rpartition("@")[2])
    circuit = Circuit.model_validate(Variable.get(variable, default={}))
    circuit.check(parts.hostname, datetime.now(UTC), timedelta(seconds=rest_seconds))
    patient = download.with_options(retry_delay_seconds=exponential_backoff(first_pause_seconds))
    try:
        fetched = patient(url, path, most_bytes)
    except Unavailable:
        circuit = circuit.after_failure(datetime.now(UTC))
        Variable.set(variable, circuit.model_dump(mode="json"), overwrite=True)
        get_run_logger().warning("gave up on %s, %s runs in a row", parts.hostname, circuit.failures)
        raise
    if circuit.failures:
        Variable.set(variable, Circuit().model_dump(mode="json"), overwrite=True)
    return Completed(message=f"{fetched['bytes']} bytes of {url} are in {path.name}", data=fetched)
