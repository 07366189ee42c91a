"""A circuit breaker that all runs share, on whichever machine: a server that goes on failing is left alone for a while.

After `FAILURES_TO_OPEN` runs in a row that gave up, the circuit is open, and runs fail at once. When the server has had
its rest, the circuit is half-open: exactly one run tries it.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from typing import Final, Literal
from uuid import UUID

import httpx
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import VariableCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.runtime import flow_run
from pydantic import AwareDatetime, BaseModel

from sluice import visible

FAILURES_TO_OPEN: Final = 3
"""Runs in a row that gave up on a host before its circuit opens."""
GONE: Final = 404


class CircuitOpen(RuntimeError):
    """The host failed too often lately; it was not asked."""


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
