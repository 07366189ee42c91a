"""Checks before a run starts that its file still is the announced version."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient

from events.errors import Refused
from services.common.file_version import verify_version
from services.prefect_api.runs import FINAL_TYPES

BROUGHT_BACK_SECONDS: Final = 20.0
"""How long a run that starts again waits for its file, which was archived when it had ended, to be brought back."""

_LOOK_SECONDS: Final = 0.05
_ASK_SECONDS: Final = 1.0


def file_problem(client: SyncPrefectClient, run_id: UUID, file: Mapping[str, Any] | None) -> str | None:
    """Return why the run must not start; None if it may, or if it has no file. Raises what Prefect's client raises."""
    error = _difference(file)
    if error is not None and error.code == "file-vanished" and _had_ended(client, run_id):
        give_up = time.monotonic() + BROUGHT_BACK_SECONDS
        ask_at = time.monotonic() + _ASK_SECONDS
        while error is not None and error.code == "file-vanished" and time.monotonic() < give_up:
            time.sleep(_LOOK_SECONDS)
            error = _difference(file)
            if error is not None and time.monotonic() > ask_at:
                ask_at = time.monotonic() + _ASK_SECONDS
                state = client.read_flow_run(run_id).state
                if state is not None and state.is_final():
                    return state.message or "its start was refused"
    return f"Not started: {error.reason}." if error is not None else None


def _difference(file: Mapping[str, Any] | None) -> Refused | None:
    if file is None:
        return None
    try:
        verify_version(str(file.get("path")), str(file.get("version")))
    except Refused as error:
        return error
    return None


def _had_ended(client: SyncPrefectClient, run_id: UUID) -> bool:
    return any(state.type.value in FINAL_TYPES for state in client.read_flow_run_states(run_id))
