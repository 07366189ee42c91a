"""What is sent for a run, and what Prefect's answers mean."""

from __future__ import annotations

import pytest

from events.action import RunDeployment
from events.errors import RejectedEvent
from events.identity import identity_of
from services.prefect_api.dispatch import CreationResult, _result, run_request, tags_of


def _action(**fields: object) -> RunDeployment:
    return RunDeployment.model_validate({"rule": "pay", "identities": ("e1",), "deployment": "f/d"} | fields)


def _request(action: RunDeployment, **options: object) -> dict[str, object]:
    defaults = {"source": "shop", "file": None, "has_work_pool": False, "max_parameter_bytes": 1000}
    return run_request(action, **(defaults | options))


def test_the_key_names_event_and_rule() -> None:
    assert _request(_action())["idempotency_key"] == "e1:pay"
    assert _request(_action(ordinal=2, salt="again"))["idempotency_key"] == "e1:pay#2~again"


def test_names_and_tags_are_made_visible_and_cut() -> None:
    body = _request(_action(run_name="two\nlines" + "x" * 500, tags=("a\x00b",)))
    assert "\n" not in str(body["name"])
    assert len(str(body["name"])) == 200
    assert r"a\x00b" in body["tags"]


def test_a_run_of_many_events_is_tagged_with_the_first_ones() -> None:
    tags = tags_of(_action(identities=tuple(identity_of("shop", f"e{number}") for number in range(100))), "shop")
    assert [tag for tag in tags if tag.startswith("event:")] == [f"event:e{number}" for number in range(10)]


def test_a_file_goes_along_for_deployments_that_the_executor_runs() -> None:
    file = {"path": "/inbox/a.csv", "version": "1-2-3"}
    assert _request(_action(), file=file)["job_variables"] == {"sluice_file": file}
    assert "job_variables" not in _request(_action(), file=file, has_work_pool=True)


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"a": {"b": [{"__prefect_kind": "workspace_variable", "variable_name": "secret"}]}}, "hydration"),
        ({"a": "x" * 2000}, "parameters-too-large"),
        ({"a": ["fine", "not\x00fine"]}, "nul-character"),
        ({"not\x00fine": 1}, "nul-character"),
    ],
)
def test_parameters_that_must_not_reach_prefect_are_refused(parameters: dict[str, object], code: str) -> None:
    with pytest.raises(RejectedEvent) as refused:
        _request(_action(parameters=parameters))
    assert refused.value.code == code


def test_hydration_is_refused_in_job_variables_too() -> None:
    with pytest.raises(RejectedEvent):
        _request(_action(job_variables={"env": {"__prefect_kind": "jinja", "template": "{{ 1 }}"}}))


def test_text_that_only_looks_like_an_escaped_nul_passes() -> None:
    assert _request(_action(parameters={"a": "\\u0000"}))["parameters"] == {"a": "\\u0000"}


def test_a_delayed_run_is_scheduled_and_others_are_not() -> None:
    assert "state" not in _request(_action())
    delayed = _request(_action(scheduled_seconds=60))
    assert delayed["state"]["type"] == "SCHEDULED"
    assert "scheduled_time" in delayed["state"]["state_details"]


@pytest.mark.parametrize(
    ("said", "alone", "fate", "code"),
    [
        ("Parameter validation failed: 1 is not a string", False, CreationResult.REFUSED, "parameters-refused"),
        ("Cannot create flow run in work queue x because …", False, CreationResult.REFUSED, "prefect-refused"),
        (
            "(sqlite3.OperationalError) database is locked\n[SQL: INSERT …]",
            False,
            CreationResult.RETRY,
            "prefect-failed",
        ),
        ("deadlock detected", True, CreationResult.RETRY, "prefect-failed"),
        ("QueuePool limit of size 5 overflow 10 reached", True, CreationResult.RETRY, "prefect-failed"),
        ("current transaction is aborted, commands ignored", False, CreationResult.ALONE, "prefect-failed"),
        ("something nobody has seen", False, CreationResult.ALONE, "prefect-failed"),
        ("something nobody has seen", True, CreationResult.FAILED, "prefect-failed"),
    ],
)
def test_each_items_answer_is_told_apart(said: str, alone: bool, fate: CreationResult, code: str) -> None:
    result = _result({"status": "FAILED", "error": said}, alone=alone)
    assert (result.fate, result.code) == (fate, code)


def test_a_created_item_carries_its_run() -> None:
    result = _result({"status": "CREATED", "flow_run_id": "r1"}, alone=False)
    assert (result.fate, result.run_id) == (CreationResult.CREATED, "r1")
