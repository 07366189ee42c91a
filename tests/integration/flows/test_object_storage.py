"""Files to and from object storage, through a real S3 server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.blocks.system import Secret
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State

from flows.transfer_file import transfer_file
from tasks import storage
from tasks.storage import copy_object
from tests.integration.flows.conftest import run_id
from tests.support.object_storage import SECRET, ObjectStorage, object_storage

pytestmark = pytest.mark.usefixtures("prefect_url")
PART = 5 * 1024**2  # S3 takes no smaller ones
CONTENT = b"0123456789abcdef" * 700_000  # more than two parts
OBJECT = "s3://bucket/deep/a.bin"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStorage]:
    home = tmp_path_factory.mktemp("s3")
    (home / "data" / "bucket").mkdir(parents=True)
    with object_storage(home / "data", home / "rclone.log") as storage_:
        yield storage_


@pytest.fixture
def s3(server: ObjectStorage, prefect_url: str, monkeypatch: pytest.MonkeyPatch) -> ObjectStorage:
    """The server with an empty bucket, and its options in the Secret block ``storage-s3``; retries do not pause."""
    for path in (server.folder / "bucket").rglob("*"):
        if path.is_file():
            path.unlink()
    server.asked.clear()
    server.refuse, server.answered = (lambda _: False), (lambda _: None)
    save("storage-s3", server.options())
    monkeypatch.setattr(storage, "PART_BYTES", PART)
    monkeypatch.setattr(storage, "CHUNK_BYTES", PART // 5)
    monkeypatch.setattr(copy_object, "retry_delay_seconds", [0.0] * 8)
    monkeypatch.setattr(copy_object, "retry_jitter_factor", None)
    return server


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.bin"
    path.write_bytes(CONTENT)
    return path


def save(block: str, options: str) -> None:
    Secret(value=options).save(block, overwrite=True)


def tries(prefect: SyncPrefectClient, state: State[Any]) -> int:
    where = {"flow_runs": {"id": {"any_": [str(run_id(state))]}}}
    (run,) = prefect.request("POST", "/task_runs/filter", json=where).json()
    return int(run["run_count"])


def test_a_file_goes_up_in_parts_appears_when_it_is_complete_and_comes_back(
    s3: ObjectStorage, file: Path, tmp_path: Path, logs: Callable[[State[Any]], list[str]]
) -> None:
    target = s3.folder / "bucket" / "deep" / "a.bin"
    there: dict[str, bool] = {}
    s3.answered = lambda name: there.setdefault(name, target.exists())
    state = transfer_file(str(file), OBJECT, "storage-s3", return_state=True)
    assert state.message == f"{len(CONTENT)} bytes of {file} are in {OBJECT}"
    uploading = [name for name in s3.asked if "Upload" in name]
    parts = ["UploadPart 1", "UploadPart 2", "UploadPart 3"]
    assert uploading == ["CreateMultipartUpload", *parts, "CompleteMultipartUpload"]
    assert [there[name] for name in uploading] == [False, False, False, False, True]
    assert target.read_bytes() == CONTENT
    transfer_file(OBJECT, str(tmp_path / "back" / "a.bin"), "storage-s3")
    assert (tmp_path / "back" / "a.bin").read_bytes() == CONTENT
    assert SECRET not in "\n".join(logs(state))


def test_an_upload_that_breaks_off_is_thrown_away_and_begun_again(
    s3: ObjectStorage, file: Path, prefect: SyncPrefectClient
) -> None:
    s3.refuse = lambda name: name == "UploadPart 2" and s3.asked.count("CreateMultipartUpload") <= 2
    state = transfer_file(str(file), OBJECT, "storage-s3", return_state=True)
    assert state.is_completed(), state.message
    assert tries(prefect, state) == 3
    assert s3.asked.count("AbortMultipartUpload") == 2
    assert s3.asked.count("CompleteMultipartUpload") == 1
    assert (s3.folder / "bucket" / "deep" / "a.bin").read_bytes() == CONTENT


def test_an_object_that_differs_from_the_file_is_no_copy(
    s3: ObjectStorage, file: Path, prefect: SyncPrefectClient
) -> None:
    def damage(name: str) -> None:
        if name == "CompleteMultipartUpload":
            (s3.folder / "bucket" / "deep" / "a.bin").write_bytes(CONTENT[:-1] + b"!")

    s3.answered = damage
    state = transfer_file(str(file), OBJECT, "storage-s3", return_state=True)
    assert f"{OBJECT} is not what was written: its SHA-256 differs" in str(state.message)
    assert tries(prefect, state) == 1


@pytest.mark.parametrize(
    ("address", "options", "said"),
    [
        ("s3://no-such-bucket/a.bin", {}, "s3://no-such-bucket/a.bin: The specified bucket does not exist; look at"),
        (OBJECT, {"secret": "another"}, "look at the Secret block storage-wrong, and at what its owner may do there"),
        (OBJECT, {"key": "nobody"}, "look at the Secret block storage-wrong, and at what its owner may do there"),
        ("nothing://bucket/a", {}, "nothing:// cannot be opened"),
    ],
)
def test_what_another_try_cannot_mend_is_said_at_once(
    s3: ObjectStorage, file: Path, prefect: SyncPrefectClient, *, address: str, options: dict[str, str], said: str
) -> None:
    save("storage-wrong", s3.options(**options))
    state = transfer_file(str(file), address, "storage-wrong", return_state=True)
    assert said in str(state.message)
    assert tries(prefect, state) == 1


def test_an_object_that_is_not_there_is_named(s3: ObjectStorage, tmp_path: Path) -> None:
    state = transfer_file(OBJECT, str(tmp_path / "a.bin"), "storage-s3", return_state=True)
    assert OBJECT in str(state.message)
    assert "look at the name" in str(state.message)
    assert not (tmp_path / "a.bin").exists()


def test_a_storage_that_nobody_answers_for_is_tried_again(
    s3: ObjectStorage, file: Path, prefect: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy_object, "retries", 1)
    save("storage-gone", s3.options(client_kwargs={"endpoint_url": "http://127.0.0.1:9", "region_name": "us-east-1"}))
    state = transfer_file(str(file), OBJECT, "storage-gone", return_state=True)
    assert "Could not connect to the endpoint URL" in str(state.message)
    assert tries(prefect, state) == 2
