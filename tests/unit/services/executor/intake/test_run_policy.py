from dataclasses import dataclass, field
from typing import Any

import pytest

from services.executor.intake.run_policy import RunPolicy, queue_names
from services.store.runs.registered_files import RegisteredFile


@dataclass
class Deployment:
    id: str = "d1"
    name: str = "load/default"
    path: str | None = None
    entrypoint: str | None = "job.py:main"
    remote: bool = False
    work_pool: str | None = None
    tags: tuple[str, ...] = ()
    job_variables: dict[str, Any] = field(default_factory=dict)


@pytest.fixture
def here(tmp_path):
    (tmp_path / "job.py").touch()
    return str(tmp_path)


def nothing(deployment_id: str) -> None:
    """`sluice deploy` has registered nothing."""


DEFAULT = RunPolicy(executor="default", globs=("*",), registered=nothing)


def test_a_deployment_whose_code_lies_here_is_taken(here):
    assert DEFAULT.refusal(Deployment(path=here)) is None


def test_a_deployment_with_a_work_pool_is_left_to_its_workers(here):
    assert "work pool docker" in DEFAULT.refusal(Deployment(path=here, work_pool="docker"))


def test_a_deployment_whose_code_is_not_here_is_left_alone_unless_it_is_ours(here):
    elsewhere = Deployment(path=here, entrypoint="gone.py:main")
    assert "does not exist" in DEFAULT.refusal(elsewhere)
    ours = RunPolicy("default", (), {"d1": RegisteredFile(here, "gone.py:main")}.get)
    assert ours.refusal(elsewhere) is None


def test_without_a_name_in_the_settings_only_what_was_registered_is_taken(here):
    policy = RunPolicy("default", (), {"d1": RegisteredFile(here, "job.py:main")}.get)
    assert policy.refusal(Deployment(path=here)) is None
    for foreign in (
        Deployment(id="d2", path=here),
        Deployment(id="d2", path=here, tags=("sluice",)),
        Deployment(id="d2", remote=True, tags=("sluice",)),
    ):
        assert "has not registered it" in policy.refusal(foreign)


def test_a_registered_deployment_that_was_changed_is_not_the_projects_any_more(here):
    policy = RunPolicy("default", (), {"d1": RegisteredFile(here, "job.py:main")}.get)
    for changed in (
        Deployment(path=here, entrypoint="evil.py:main"),
        Deployment(path="/tmp"),
        Deployment(path=here, remote=True),
    ):
        assert "deploy again" in policy.refusal(changed)


def test_a_deployment_that_was_served_from_fetched_code_is_left_to_the_process_that_served_it():
    assert "fetched" in DEFAULT.refusal(Deployment(path="$STORAGE_BASE_PATH/repo"))


@pytest.mark.parametrize("path", [None, ".", "flows/..", "elsewhere"])
def test_a_relative_path_is_never_taken_for_one_here(path, monkeypatch, here):
    """It would be that of whatever has the same name in our working directory: of our own flows, in a checkout."""
    monkeypatch.chdir(here)
    for entrypoint in ("job.py:main", "flows.ingest_file.ingest_file"):
        assert "is relative" in DEFAULT.refusal(Deployment(path=path, entrypoint=entrypoint))


def test_a_deployment_without_an_entrypoint_is_left_alone(here):
    assert "no entrypoint" in DEFAULT.refusal(Deployment(path=here, entrypoint=None))


def test_a_deployment_that_fetches_its_code_is_taken():
    assert DEFAULT.refusal(Deployment(remote=True)) is None


def test_a_pinned_deployment_is_taken_by_the_executors_of_that_name_alone(here):
    pinned = Deployment(path=here, job_variables={"sluice_executor": "gpu"})
    assert "pinned to the executor gpu" in DEFAULT.refusal(pinned)
    gpu = RunPolicy(executor="gpu", globs=("*",), registered=nothing)
    assert gpu.refusal(pinned) is None
    assert "pinned to no executor, so that one of the name default" in gpu.refusal(Deployment(path=here))


def test_globs_narrow_what_is_taken(here):
    policy = RunPolicy(executor="default", globs=("load/*", "*/nightly"), registered=nothing)
    assert policy.refusal(Deployment(path=here)) is None
    assert policy.refusal(Deployment(name="x/nightly", path=here)) is None
    assert "does not name it" in policy.refusal(Deployment(name="x/default", path=here))


@pytest.mark.parametrize(
    ("priority", "queue"),
    [(None, "sluice-runs"), ("high", "sluice-runs-high"), ("low", "sluice-runs-low"), ("nonsense", "sluice-runs")],
)
def test_the_priority_names_the_queue(priority, queue):
    assert DEFAULT.queue(Deployment(job_variables={"sluice_priority": priority})) == queue


def test_slots_look_at_the_most_urgent_queue_first():
    assert queue_names("default") == ["sluice-runs-high", "sluice-runs", "sluice-runs-low"]
    assert queue_names("gpu") == ["sluice-runs-gpu-high", "sluice-runs-gpu", "sluice-runs-gpu-low"]
