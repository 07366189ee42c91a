"""Load one file of rows into a database table, all of them or none, and show on the run's page what it held.

What loading is lies in `sluice.loading`; this is how it becomes a run: its state, its progress, its artifacts, and the
wait for a person where a contract asks for an approval.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Final, cast
from uuid import UUID

from prefect import State, Task, flow, get_run_logger, runtime, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.blocks.system import Secret
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.states import Completed, Failed
from prefect.tasks import exponential_backoff
from pydantic import BaseModel, Field, SecretStr

from sluice import Budget, OverBudget, SignalRejected, SignalTimeout, in_markdown, run_name, visible, wait_for_signal
from sluice.loading import Contract, LoadReport, NeedsApproval, RefusedFile, TargetFailed, load_file
from sluice.loading.contracts.contract_files import contract_for, project_contracts, read_contract
from sluice.loading.load import display, past_loads
from sluice.loading.reporting.pages import artifact_key, bad_rows_page, load_page, trend_page

DEPLOYMENT: Final = {"memory_mb": 1024, "time_seconds": 1800}

FLOW: Final = "ingest-file"
BUDGET: Final = Budget()
SECONDS_BETWEEN_UPDATES: Final = 1.0
LOADS_SHOWN: Final = 20
"""In the trend of a table."""


class LoadApproval(BaseModel):
    """What is answered about a file with bad rows; Prefect's page of the run shows it as a form."""

    approved: bool = Field(description="Whether the good rows are to be loaded without the bad ones")
    by: str = Field(default="", description="Who decided")


class LoadProgress:
    """How much of the work is done and how fast it goes, on the run's page, at most once a second."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._started = self._told = time.monotonic()
        self._artifact: UUID | None = None

    def reached(self, share: float, rows: int) -> None:
        """``share`` (0 to 1) is done; short loads are not shown."""
        now = time.monotonic()
        if now - self._told < SECONDS_BETWEEN_UPDATES:
            return
        self._told = now
        said = f"{self._name}: {share:.0%} of the work, {rows / (now - self._started):,.0f} rows a second"
        if self._artifact is None:
            self._artifact = cast("UUID", create_progress_artifact(100 * share, description=said))
        else:
            update_progress_artifact(self._artifact, progress=100 * share, description=said)


def _may_pass(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    return isinstance(state.data, TargetFailed) and state.data.transient  # a lock, a lost connection


@task(
    retries=3,
    retry_delay_seconds=exponential_backoff(1),
    retry_jitter_factor=0.5,
    retry_condition_fn=_may_pass,
    cache_policy=NO_CACHE,
)
def load(path: Path, database_url: str, options: dict[str, Any]) -> LoadReport:
    """Load the file in one transaction, with its progress on the run's page."""
    return load_file(path, database_url, progress=LoadProgress(display(path.name)).reached, flow=FLOW, **options)


@flow(name=FLOW, flow_run_name=run_name("ingest {path}"))
def ingest_file(
    path: str,
    table: str | None = None,
    database_url: str | None = None,
    *,
    database_schema: str | None = None,
    contract: str | dict[str, Any] | None = None,
    budget: Budget = BUDGET,
    database_secret: str | None = None,
    masking_secret: str | None = None,
    approve_within_seconds: float = 86_400,
) -> State[dict[str, Any]]:
    """Load the rows of one file into a table.

    A contract says how the file is read, what its values must be and what happens to bad rows: ``contract`` (a YAML
    file, or its content), or the project's contract whose ``path`` fits the file's name. Without one the types are
    inferred from all values, and any bad row refuses the file. The table is ``table``, or that of the contract, or is
    named after the file, and then never one of another flow.

    Needs a database: any that SQLAlchemy knows, or a folder of Parquet files (``parquet:///FOLDER``), by its URL, or by
    ``database_secret``, the name of a Secret block that holds it; by default ``SLUICE_DATABASE_URL``, or SQLite in
    ``data.db`` of ``SLUICE_HOME``. ``budget`` sets what one file may cost. ``masking_secret`` is the name of a Secret
    block with the secret of columns masked with ``hmac``, by default ``SLUICE_MASKING_SECRET``. A file whose bad rows
    need an approval waits for it for ``approve_within_seconds``.
    """
    file = Path(path)
    url = url_of(database_secret, database_url)
    try:
        options = {
            "table": table,
            "schema": database_schema,
            "contract": contract_of(file, contract),
            "budget": budget,
            "masking_secret": secret_of(masking_secret),
        }
        try:
            report = load(file, url, options)
        except NeedsApproval as needed:
            refusal = ask(file, needed, approve_within_seconds)
            if refusal is not None:
                return refusal
            report = load(file, url, options | {"approved": True})
    except (RefusedFile, OverBudget) as error:
        return Failed(message=visible(str(error), lines=True), data=error)
    except TargetFailed as error:
        return Failed(message=visible(f"{display(file.name)} was not loaded: {error}", lines=True), data=error)
    if not report.already:
        publish(report, url)
    message = visible(report.message)
    get_run_logger().info(message)
    return Completed(message=message, data=report.as_dict())


def url_of(secret_block: str | None, given: str | None) -> str:
    """The URL of the database: that in the Secret block, the given one, or the default of the environment."""
    secret = secret_of(secret_block)
    if secret:
        return secret.get_secret_value()
    home = Path(os.environ.get("SLUICE_HOME", ".sluice")).resolve()
    return given or os.environ.get("SLUICE_DATABASE_URL") or f"sqlite:///{home / 'data.db'}"


def contract_of(file: Path, said: str | dict[str, Any] | None) -> Contract | None:
    """The contract that was named, or the project's for files of this name. Raises `RefusedFile`."""
    return contract_for(file, project_contracts()) if said is None else read_contract(said)


def secret_of(block: str | None) -> SecretStr | None:
    """The value of a Secret block of Prefect; `ValueError` where there is none of that name."""
    if block is None:
        return None
    try:
        return SecretStr(str(Secret.load(block).get()))  # type: ignore[union-attr]
    except ValueError as error:
        raise ValueError(f"there is no Secret block {block!r}: create it in Prefect, or mend the parameter") from error


def ask(file: Path, needed: NeedsApproval, within_seconds: float) -> State[Any] | None:
    """Wait for somebody to approve of loading the good rows; a state to end with, if that is not to be."""
    name = display(file.name)
    key = approval_key(name, str(runtime.flow_run.id))
    if needed.bad is not None:
        page = bad_rows_page(name, needed.bad)
        create_markdown_artifact(page, key=f"bad-rows-{artifact_key(name)}", description="Bad rows to be approved of")
    get_run_logger().warning("%s; waiting for a signal with the key %s", visible(str(needed)), key)
    asked = f"### Load the other rows of {in_markdown(name)}?\n\n{in_markdown(str(needed))}"
    try:
        # Where there is a deployment to start the run again, no process waits: see the time limit above.
        answer = wait_for_signal(
            key=key,
            input=LoadApproval,
            timeout=within_seconds,
            suspend=runtime.deployment.id is not None,
            description=asked,
        )
    except SignalTimeout:
        said = f"nobody approved of it within {within_seconds:g} s"
    except SignalRejected as rejection:
        said = str(rejection)
    else:
        if answer.approved:
            return None
        said = f"loading the other rows was refused{f' by {answer.by}' if answer.by else ''}"
    return Failed(message=visible(f"{needed}: {said}", lines=True))


def approval_key(name: str, run_id: str) -> str:
    """What a signal about the file is addressed to: two files of one name can wait at the same time."""
    return f"load-{name[:150]}-{run_id[:8]}"


def publish(report: LoadReport, url: str) -> None:
    """Show what was loaded on the run's page, and in a series of its own for each table."""
    key = f"ingest-{artifact_key(report.table)}"
    create_markdown_artifact(load_page(report), key=key, description="What was loaded, and how it was read")
    columns = [{name: shown(value) for name, value in column.items()} for column in report.columns]
    create_table_artifact(columns, key=f"{key}-columns", description=visible(f"The columns of {report.table}"))
    try:
        loads = past_loads(url, report.table, LOADS_SHOWN)
    except TargetFailed as error:  # the rows are in
        get_run_logger().warning("the loads before could not be read: %s", visible(str(error)))
        return
    if len(loads) > 1:
        trend = trend_page(report.table, loads)
        create_markdown_artifact(trend, key=f"{key}-trend", description=visible(f"The last loads into {report.table}"))


def shown(value: Any) -> Any:
    """A value of a table artifact, without what is not to be seen."""
    if isinstance(value, dict):
        return ", ".join(f"{visible(str(name))}: {count}" for name, count in value.items())
    return visible(value) if isinstance(value, str) else value


if __name__ == "__main__":
    import sys

    ingest_file(sys.argv[1])
