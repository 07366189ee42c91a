"""Fetch a URL into a file in spite of a server that fails now and then, without adding to its troubles.

A failing server is tried again after pauses that grow and vary. One that goes on failing is left alone for a while by
every run, on whichever machine, and then tried by one of them: a circuit breaker.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import SplitResult, urlsplit
from uuid import UUID

import httpx
from prefect import State, Task, flow, get_client, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import VariableCreate
from prefect.client.schemas.objects import TaskRun
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.tasks import exponential_backoff
from pydantic import AwareDatetime, BaseModel

from sluice import visible

FAILURES_TO_OPEN: Final = 3
"""Runs in a row that gave up on a host before its circuit opens."""
TOO_MANY_REQUESTS: Final = 429
GONE: Final = 404


class CircuitOpen(RuntimeError):
    """The host failed too often lately; it was not asked."""


class Unavailable(RuntimeError):
    """The server did not answer, or answered that it cannot now: worth another try."""


class RefusedByHost(ValueError):
    """The server works, and what was asked of it cannot be had: another try would bring the same."""


class Note(BaseModel):
    """What a run tells the others about a host: a Prefect variable's value."""

    kind: Literal["failure", "probe"]
    host: str
    run: str
    at: AwareDatetime


class HostCircuit:
    """What the runs know together about one host, as notes that only their own writer makes.

    Prefect's server makes the variable of a name once, whoever else tries: so no failure is lost among others, and of
    many runs that would try the host again one gets the note that allows it. Nothing is read, changed and written back.
    """

    def __init__(self, host: str, *, rest: timedelta) -> None:
        self._host = host
        self._rest = rest
        self._run = str(flow_run.id)
        self._prefix = f"circuit_{hashlib.sha256(host.encode()).hexdigest()[:16]}"
        self._probes = False

    def enter(self) -> None:
        """Return where the host may be asked; raise `CircuitOpen` while it is left alone, or tried by another run."""
        with get_client(sync_client=True) as client:
            if not self._rests(client):
                return
            self._take_probe(client)
            # Another run may have tried, and told how it went, since the notes were read.
            try:
                still_open = self._rests(client)
            except CircuitOpen:
                self._give_probe_back(client)
                raise
            if not still_open:
                self._give_probe_back(client)

    def gave_up(self) -> int:
        """This run got no answer; returns how many runs in a row did not (at most `FAILURES_TO_OPEN` are counted)."""
        with get_client(sync_client=True) as client:
            name = f"failure_{self._run}_{flow_run.run_count}"
            self._write(client, name, "failure")
            failures = self._failures(client)
            for variable, _ in failures[:-FAILURES_TO_OPEN]:
                _delete(client, variable)
            self._give_probe_back(client)
        return min(len(failures), FAILURES_TO_OPEN)

    def answered(self) -> None:
        """The host works: what was noted before counts no longer."""
        with get_client(sync_client=True) as client:
            for variable, _ in self._failures(client):
                _delete(client, variable)
            self._give_probe_back(client)

    def leave(self) -> None:
        """Nothing was learnt about the host; another run may try it."""
        if self._probes:
            with get_client(sync_client=True) as client:
                self._give_probe_back(client)

    def _rests(self, client: SyncPrefectClient) -> bool:
        """Whether the circuit is open and the time to leave the host alone over; raises `CircuitOpen` before that."""
        failures = self._failures(client)
        if len(failures) < FAILURES_TO_OPEN:
            return False
        again = failures[-1][1].at + self._rest
        if datetime.now(UTC) < again:
            until = again.isoformat(timespec="seconds")
            raise CircuitOpen(
                f"{visible(self._host)} failed in {FAILURES_TO_OPEN} runs in a row and is left alone until {until}"
            )
        return True

    def _take_probe(self, client: SyncPrefectClient) -> None:
        while not self._write(client, "probe", "probe"):
            taken = next((one for one in self._notes(client) if one[1].kind == "probe"), None)
            if taken is None:
                continue  # it has just been given back
            if taken[1].run == self._run:  # this very run, before it was started again
                break
            if not _is_over(client, taken[1].run):
                raise CircuitOpen(
                    f"{visible(self._host)} is being tried by the run {taken[1].run}; it is left alone until that ends"
                )
            _delete(client, taken[0])  # by its id: what another run has written meanwhile stays
        self._probes = True

    def _give_probe_back(self, client: SyncPrefectClient) -> None:
        if self._probes:
            self._probes = False
            for variable, note in self._notes(client):
                if note.kind == "probe" and note.run == self._run:
                    _delete(client, variable)

    def _write(self, client: SyncPrefectClient, name: str, kind: Literal["failure", "probe"]) -> bool:
        """Make a note; False where there is one of that name."""
        note = Note(kind=kind, host=self._host, run=self._run, at=datetime.now(UTC))
        name = re.sub(r"[^a-z0-9_]", "_", f"{self._prefix}_{name}")
        variable = VariableCreate(name=name, value=note.model_dump(mode="json"), tags=["circuit", self._prefix])
        try:
            client.create_variable(variable)
        except ObjectAlreadyExists:
            return False
        return True

    def _failures(self, client: SyncPrefectClient) -> list[tuple[str, Note]]:
        """The notes of failures, the newest last."""
        found = [one for one in self._notes(client) if one[1].kind == "failure"]
        return sorted(found, key=lambda one: one[1].at)

    def _notes(self, client: SyncPrefectClient) -> list[tuple[str, Note]]:
        body = {"variables": {"tags": {"all_": [self._prefix]}}, "sort": "CREATED_DESC", "limit": 200}
        found = client.request("POST", "/variables/filter", json=body).json()
        return [(variable["id"], Note.model_validate(variable["value"])) for variable in found]


def _delete(client: SyncPrefectClient, variable_id: str) -> None:
    try:
        client.request("DELETE", "/variables/{id}", path_params={"id": variable_id})
    except httpx.HTTPStatusError as error:
        if error.response.status_code != GONE:
            raise


def _is_over(client: SyncPrefectClient, run_id: str) -> bool:
    try:
        state = client.read_flow_run(UUID(run_id)).state
    except ObjectNotFound:
        return True
    return state is not None and state.is_final()


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
