"""What ``DEPLOYMENT`` says for each environment, and what that is to Prefect."""

from __future__ import annotations

from typing import Any

import pytest

from services.deployments.options import ENVIRONMENTS, Options, options_of, place_of

STEP = {"prefect.deployments.steps.git_clone": {"repository": "https://example.com/flows.git"}}


def test_each_environment_has_what_is_said_for_all_and_for_itself() -> None:
    found, faults = options_of({"cron": "0 3 * * *", "tags": ["a"], "environments": {"production": {"cron": None}}})
    assert faults == []
    assert set(found) == set(ENVIRONMENTS)
    assert [found[name].cron for name in ("development", "staging", "production")] == ["0 3 * * *", "0 3 * * *", None]
    assert {found[name].tags for name in ENVIRONMENTS} == {("a",)}


def test_what_is_wrong_is_left_out_and_the_rest_holds() -> None:
    found, faults = options_of({"cron": "never", "memory_mb": 5, "environments": {"staging": {"memory_mb": -1}}})
    assert [key for key, _ in faults] == [("cron",), ("environments", "staging", "memory_mb")]
    assert (found["development"].cron, found["development"].memory_mb) == (None, 5)
    assert found["staging"].memory_mb is None


@pytest.mark.parametrize("environments", [[], "production", None, 5])
def test_environments_are_a_mapping(environments: Any) -> None:
    found, ((key, what), *_) = options_of({"environments": environments})
    assert (key, "write a mapping" in what) == (("environments",), True)
    assert found["production"] == Options()


def test_an_environment_that_there_is_not_is_looked_through_too() -> None:
    _, faults = options_of({"environments": {"prod": {"crom": 1}}})
    assert [key for key, _ in faults] == [("environments", "prod"), ("environments", "prod", "crom")]


def test_a_key_stands_where_it_counts() -> None:
    given = {"cron": "x", "tags": [], "environments": {"production": {"cron": "y"}}}
    assert place_of(given, "production", ("cron",)) == ("environments", "production", "cron")
    assert place_of(given, "staging", ("cron",)) == ("cron",)
    assert place_of(given, "production", ("tags", 0)) == ("tags", 0)


def test_options_over_a_template_keep_its_tags_and_job_variables() -> None:
    template = Options(tags=("a", "b"), job_variables={"env": {"A": "1"}, "x": 1}, memory_mb=64, owner="ada")
    own = Options(tags=("b", "c"), job_variables={"x": 2}, owner="bob")
    whole = own.over(template)
    assert (whole.tags, whole.job_variables) == (("a", "b", "c"), {"env": {"A": "1"}, "x": 2})
    assert (whole.memory_mb, whole.owner) == (64, "bob")
    assert Options().over(template) == template


def test_what_the_executor_needs_to_know_is_among_the_job_variables() -> None:
    assert Options().variables() == {}
    tuned = Options(executor="gpu", priority="high", memory_mb=9, time_seconds=1.5, on_lost="restart", folders=("/d",))
    assert tuned.variables() == {
        "sluice_executor": "gpu", "sluice_priority": "high", "sluice_memory_mb": 9, "sluice_time_seconds": 1.5,
        "sluice_on_lost": "restart", "sluice_folders": ["/d"],
    }  # fmt: skip
    assert Options(work_pool="a", job_variables={"image": "x"}).variables() == {"image": "x"}


def test_a_worker_comes_to_the_code_by_steps() -> None:
    assert Options().pull_steps("/project") is None
    entered = {"prefect.deployments.steps.set_working_directory": {"directory": "/project"}}
    assert Options(work_pool="a").pull_steps("/project") == [entered]
    assert Options(work_pool="a", pull=(STEP,)).pull_steps("/project") == [STEP]


def test_what_says_nothing_where_the_flow_runs_is_told() -> None:
    pool = Options(work_pool="a")
    assert [key for key, _ in Options(pull=(STEP,)).pool_faults(Options())] == [("pull",)]
    assert list(Options(pull=(STEP,)).pool_faults(pool)) == []
    assert [key for key, _ in Options(memory_mb=5, on_lost="restart").pool_faults(pool)] == [
        ("memory_mb",), ("on_lost",)
    ]  # fmt: skip
    assert list(Options(tags=("a",)).pool_faults(pool)) == []


@pytest.mark.parametrize(
    ("said", "schedules"),
    [
        ({}, []),
        ({"cron": "@daily"}, [{"cron": "@daily"}]),
        ({"cron": "0 3 * * 1-5", "timezone": "Europe/Berlin"}, [{"cron": "0 3 * * 1-5", "timezone": "Europe/Berlin"}]),
        ({"interval_seconds": 60}, [{"interval": 60.0}]),
    ],
)
def test_schedules_are_those_of_prefects_api(said: dict[str, Any], schedules: list[dict[str, Any]]) -> None:
    zone = {"timezone": Options().timezone}
    assert Options(**said).schedules() == [{"schedule": {**zone, **one}, "active": True} for one in schedules]


@pytest.mark.parametrize(
    "said",
    [
        {"folders": ["relative"]},
        {"job_variables": {"sluice_memory_mb": 5}},
        {"job_variables": {"sluice_memory": 5}},
        {"job_variables": {"env": {"A": 1}}},
        {"job_variables": {"working_dir": 5}},
        {"pull": [{"a.b": {}, "c.d": {}}]},
        {"pull": [{"a.b": "text"}]},
        {"time_seconds": float("inf")},
        {"owner": ""},
    ],
)
def test_a_value_that_does_not_fit_is_a_fault_of_its_key(said: dict[str, Any]) -> None:
    _, faults = options_of(said)
    assert {key[0] for key, _ in faults} == set(said)
