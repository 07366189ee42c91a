"""Files in object storage, containers, masks; and a secret that is looked for in everything that Prefect keeps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from prefect import flow
from prefect.blocks.system import Secret
from prefect.client.orchestration import SyncPrefectClient

from flows.ingest_file import ingest_file, load
from flows.mask_people import mask_people
from flows.performance_monitor import performance_monitor
from flows.run_in_container import run_in_container
from flows.transfer_file import transfer_file
from tasks import storage
from tasks.credentials import masked, required, secret_of
from tasks.notifying import deliver

pytestmark = pytest.mark.usefixtures("prefect_url")
Artifacts = Callable[[Any], dict[str | None, Any]]
PLANTED = "planted-7f3c1d9e-secret"


@pytest.fixture
def memory() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def test_a_file_goes_to_object_storage_and_comes_back(tmp_path: Path, memory: Any) -> None:
    source = tmp_path / "a.bin"
    source.write_bytes(b"0123456789" * 1_000_000)  # more than a piece
    up = transfer_file(str(source), "memory://bucket/deep/a.bin", return_state=True)
    assert up.message == f"10000000 bytes of {source} are in memory://bucket/deep/a.bin"
    transfer_file("memory://bucket/deep/a.bin", str(tmp_path / "back" / "a.bin"))
    assert (tmp_path / "back" / "a.bin").read_bytes() == source.read_bytes()


def test_the_options_come_from_a_secret_block_that_holds_an_object() -> None:
    Secret(value=json.dumps({"key": "k"})).save("storage-good", overwrite=True)
    Secret(value="not json").save("storage-bad", overwrite=True)
    assert storage.storage_options("storage-good") == {"key": "k"}
    with pytest.raises(ValueError, match="storage-bad holds no JSON object"):
        storage.storage_options("storage-bad")


def test_without_a_docker_host_the_run_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    state = run_in_container(return_state=True)
    assert state.is_failed()
    assert "there is no Docker host to start a container on: install Docker here, or set DOCKER_HOST" in str(
        state.message
    )


def test_people_are_masked_and_the_same_person_stays_the_same(
    artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLUICE_MASKING_SECRET", "a secret of sixteen bytes")
    rows = [
        {"id": "17", "email": "ada@example.com", "phone": "+44 20 7946 0958"},
        {"id": "17", "email": None, "phone": "none"},
    ]
    state = mask_people(rows, return_state=True)
    first, second = state.result()
    assert (first["email"], second["email"]) == ("***@example.com", None)
    assert first["id"] == second["id"] != "17"
    assert "7946" not in json.dumps(artifacts(state)["masked-people"])


def test_without_a_masking_secret_no_hash_is_made() -> None:
    state = mask_people(return_state=True)
    assert "create the Secret block masking-secret, or set SLUICE_MASKING_SECRET" in str(state.message)


def test_everything_that_is_not_set_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE_THAT_IS_SET", "x")
    with pytest.raises(ValueError, match="set the environment variables FIRST_MISSING, SECOND_MISSING"):
        required("ONE_THAT_IS_SET", "FIRST_MISSING", "SECOND_MISSING")
    with pytest.raises(ValueError, match=r"variable FIRST_MISSING$"):
        required("FIRST_MISSING")


@flow(name="uses-a-secret")
def uses_a_secret(url: str) -> None:
    token = secret_of("planted-token", "NOWHERE")
    with masked(token):
        deliver(url, token, {"text": "hello"})


def test_a_secret_is_nowhere_in_what_prefect_keeps(
    prefect: SyncPrefectClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token and address are used by tasks that fail, whose errors, inputs, states and logs Prefect keeps."""
    Secret(value=PLANTED).save("planted-token", overwrite=True)
    monkeypatch.setattr(deliver, "retries", 0)
    state = uses_a_secret("http://127.0.0.1:9/", return_state=True)
    assert state.is_failed()
    Secret(value=f"postgresql+psycopg://ada:{PLANTED}@127.0.0.1:9/none").save("planted-url", overwrite=True)
    monkeypatch.setattr(load, "retries", 0)
    (tmp_path / "a.csv").write_text("city\nOslo\n", encoding="utf-8")
    state = ingest_file(str(tmp_path / "a.csv"), database_secret="planted-url", return_state=True)
    assert state.is_failed()
    assert "a.csv was not loaded" in str(state.message)
    kept: list[Any] = [
        prefect.request("POST", f"/{kind}/filter", json={"limit": 200}).json()
        for kind in ("flow_runs", "task_runs", "logs", "artifacts", "variables")
    ]
    for kind in ("flow_run_states", "task_run_states"):
        runs = kept[0] if kind.startswith("flow") else kept[1]
        key = kind.removesuffix("_states") + "_id"
        kept += [prefect.request("GET", f"/{kind}/", params={key: run["id"]}).json() for run in runs]
    kept.append(prefect.request("POST", "/events/filter", json={"limit": 50}).json())
    assert "uses-a-secret" in json.dumps(prefect.request("POST", "/flows/filter", json={}).json())
    assert PLANTED not in json.dumps(kept)


def test_the_monitor_counts_tasks_and_writes_metrics(home: Path, artifacts: Artifacts) -> None:
    mask_people([{"id": "1"}], {"id": "partial"})
    state = performance_monitor(hours=1, return_state=True)
    rows = {row["task"]: row for row in artifacts(state)["performance"]}
    assert rows["mask_rows"]["runs"] >= 1
    assert set(rows["mask_rows"]) == {"task", "runs", "mean seconds", "p95 seconds", "success rate"}
    written = (home / "metrics" / "performance.prom").read_text()
    assert 'flow_task_runs{task="mask_rows"}' in written
    assert "# TYPE flow_task_p95_seconds gauge" in written
