"""Fetch a URL into a file in spite of a server that fails now and then, without adding to its troubles.

A failing server is tried again after pauses that grow and vary. One that goes on failing is left alone for a while by
every run, on whichever machine, and then tried by one of them: a circuit breaker (`tasks/circuit.py`).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import httpx
from prefect import State, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed
from prefect.tasks import exponential_backoff

from sluice import run_name, visible
from tasks.circuit import HostCircuit
from tasks.retries import NETWORK, Unavailable

TOO_MANY_REQUESTS: Final = 429


class RefusedByHost(ValueError):
    """The server works, and what was asked of it cannot be had: another try would bring the same."""


@task(**NETWORK, cache_policy=NO_CACHE)
def download(url: str, target: Path, most_bytes: int) -> dict[str, Any]:
    """Stream the body into ``target``, which appears only when it is complete."""
    digest, size, shown = hashlib.sha256(), 0, visible(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".", suffix=".part", delete=False) as part:
        draft = Path(part.name)
        try:
            with httpx.stream("GET", url, timeout=30, follow_redirects=True) as response:
                if response.is_server_error or response.status_code == TOO_MANY_REQUESTS:
                    raise Unavailable(f"{shown} answered {response.status_code} {visible(response.reason_phrase)}")
                if response.is_error:
                    raise RefusedByHost(
                        f"{shown} answered {response.status_code} {visible(response.reason_phrase)}: not tried again"
                    )
                for chunk in response.iter_bytes():
                    size += len(chunk)
                    if size > most_bytes:
                        raise RefusedByHost(
                            f"{shown} sends more than {most_bytes} bytes: raise most_bytes if that is right"
                        )
                    digest.update(chunk)
                    part.write(chunk)
            part.flush()
            os.fsync(part.fileno())
            draft.replace(target)
        except httpx.TransportError as error:
            raise Unavailable(visible(f"{url} did not answer: {type(error).__name__} {error}")) from error
        finally:
            draft.unlink(missing_ok=True)
    return {"file": str(target), "bytes": size, "sha256": digest.hexdigest()}


@flow(name="resilient-fetch", flow_run_name=run_name("fetch {url}"))
def resilient_fetch(
    url: str,
    target: str | None = None,
    most_bytes: int = 1024**3,
    first_pause_seconds: float = 1.0,
    rest_seconds: float = 60.0,
) -> State[dict[str, Any]]:
    """Fetch ``url`` into the file ``target`` (by default under ``fetched/`` of ``SLUICE_HOME``). Needs the network.

    Five attempts, with pauses that begin at ``first_pause_seconds``, double, and vary. After three runs in a row that
    gave up on the host, runs fail at once for ``rest_seconds``.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"{url!r} is not an http or https URL")
    home = Path(os.environ.get("SLUICE_HOME", ".sluice")).resolve()
    path = Path(target) if target else home / "fetched" / (Path(parts.path).name or parts.hostname)
    circuit = HostCircuit(_host(parts), rest=timedelta(seconds=rest_seconds))
    circuit.enter()
    patient = download.with_options(retry_delay_seconds=exponential_backoff(first_pause_seconds))
    try:
        fetched = patient(url, path, most_bytes)
    except Unavailable:
        failures = circuit.gave_up()
        get_run_logger().warning("gave up on %s, %s runs in a row", visible(parts.hostname), failures)
        raise
    except RefusedByHost:
        circuit.answered()
        raise
    except BaseException:
        circuit.leave()
        raise
    circuit.answered()
    return Completed(message=visible(f"{fetched['bytes']} bytes of {url} are in {path.name}"), data=fetched)


def _host(parts: SplitResult) -> str:
    """Which server it is: two spellings of one address share a circuit."""
    return f"{(parts.hostname or '').lower()}:{parts.port or {'http': 80, 'https': 443}[parts.scheme]}"
