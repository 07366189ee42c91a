"""What a deploy would do: declarations held against what Prefect has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from events.errors import ConfigError
from services.deployments.declared import Declarations, DeclaredDeployment
from services.deployments.plan import HOST_LABEL, PROJECT_LABEL, PlanStep, RegisteredDeployment, make_plan
from services.prefect_api.run_view import PROJECT_TAG

OURS = {PROJECT_LABEL: "mark", HOST_LABEL: "here"}
COMMON = {"name": "default", "entrypoint": "flows/a.py:main", "parameter_openapi_schema": {}, "version": "1"}


def declared(flow: str = "main", **fields: Any) -> DeclaredDeployment:
    return DeclaredDeployment(flow, {**COMMON, **fields}, "flows/a.py:1", lambda _: "")


def registered(
    flow: str = "main",
    *,
    labels: Mapping[str, str] | None = OURS,
    open_runs: Mapping[str, int] | None = None,
    **fields: Any,
) -> RegisteredDeployment:
    return RegisteredDeployment(
        f"{flow}/default", {"id": "an id", **COMMON, "labels": labels, **fields}, open_runs or {}
    )


def steps(
    root: Path,
    *declarations: DeclaredDeployment,
    there: RegisteredDeployment,
    poolless: Mapping[str, str] | None = None,
    **options: Any,
) -> list[PlanStep]:
    made = Declarations(root, declarations, **options)
    return make_plan(made, [there], project="mark", host="here", poolless=poolless or {})


def step(root: Path, *declarations: DeclaredDeployment, there: RegisteredDeployment, **options: Any) -> PlanStep:
    """What is to happen with the deployment that Prefect has."""
    return next(one for one in steps(root, *declarations, there=there, **options) if one.deployment == there.name)


def said(one: PlanStep) -> str:
    return "; ".join(one.details)


class TestADeclaredDeployment:
    def test_that_is_not_there_is_created_with_the_marks_of_the_project(self, tmp_path):
        made = steps(tmp_path, declared("new"), there=registered())[1]
        assert (made.action, made.deployment) == ("create", "new/default")
        assert made.body is not None
        assert made.body["labels"] == OURS

    def test_that_is_there_as_it_is_declared_is_left(self, tmp_path):
        told = step(tmp_path, declared(tags=[], description=""), there=registered(tags=None, description=None))
        assert (told.action, told.details) == ("unchanged", ())

    @pytest.mark.parametrize(
        ("here", "there", "told"),
        [
            ({"tags": ["a", "b"]}, {}, "tags: none → a, b"),
            ({"paused": True}, {"paused": False}, "paused: no → yes"),
            ({"concurrency_limit": 2}, {"global_concurrency_limit": {"limit": 3}}, "concurrency_limit: 3 → 2"),
            (
                {"schedules": [{"schedule": {"cron": "0 6 * * *", "timezone": "UTC"}}]},
                {"schedules": [{"schedule": {"interval": 60.0, "timezone": "UTC"}, "active": False}]},
                "schedules: every 60 s UTC, inactive → 0 6 * * * UTC",
            ),
            ({"description": "x" * 100}, {}, f"description: none → {'x' * 59}…"),
            ({"parameter_openapi_schema": {"type": "object"}}, {}, "the parameters that the flow takes"),
            ({"version": "2"}, {}, "the flow's file"),
        ],
    )
    def test_that_is_there_otherwise_is_changed_and_each_difference_is_told(self, tmp_path, here, there, told):
        changed = step(tmp_path, declared(**here), there=registered(**there))
        assert (changed.action, changed.deployment_id, changed.details) == ("change", "an id", (told,))

    def test_of_another_machine_is_taken_and_the_machine_is_told(self, tmp_path):
        moved = step(tmp_path, declared(), there=registered(labels={**OURS, HOST_LABEL: "elsewhere"}))
        assert (moved.action, moved.details, moved.warning) == ("change", ("the machine: elsewhere → here",), None)

    @pytest.mark.parametrize(
        ("labels", "told"),
        [
            (None, "it was not registered by Sluice"),
            ({PROJECT_LABEL: "another", HOST_LABEL: "there"}, "taken over from another project"),
        ],
    )
    def test_that_somebody_else_has_registered_is_taken_over_with_a_warning(self, tmp_path, labels, told):
        taken = step(tmp_path, declared(), there=registered(labels=labels))
        assert taken.action == "change"
        assert taken.warning is not None
        assert told in taken.warning
        assert taken.details == (taken.warning,)

    def test_of_a_project_with_another_name_is_refused(self, tmp_path):
        theirs = registered(labels={PROJECT_LABEL: "another"}, tags=[f"{PROJECT_TAG}shop"])
        with pytest.raises(ConfigError, match="belongs to the project 'shop'"):
            steps(tmp_path, declared(), there=theirs, project="office")
        assert step(tmp_path, declared(), there=theirs, project="shop").action == "change"

    def test_without_its_work_pool_is_left_with_the_reason(self, tmp_path):
        left = step(tmp_path, declared(), there=registered(), poolless={"main/default": "no such work pool"})
        assert (left.action, left.details) == ("leave", ("no such work pool",))


class TestADeploymentThatIsDeclaredNoMore:
    def test_is_removed_where_its_flow_is_gone(self, tmp_path):
        gone = step(tmp_path, declared("other"), there=registered(path=str(tmp_path)))
        assert (gone.action, gone.deployment_id, gone.details) == ("remove", "an id", ("flows/a.py:main is gone",))

    def test_is_paused_while_it_has_runs_that_are_not_over(self, tmp_path):
        there = registered(path=str(tmp_path), open_runs={"Running": 2, "Paused": 1})
        paused = step(tmp_path, declared("other"), there=there)
        assert (paused.action, "(1 Paused, 2 Running)" in said(paused)) == ("pause", True)
        again = registered(path=str(tmp_path), open_runs={"Running": 2}, paused=True)
        assert step(tmp_path, declared("other"), there=again).action == "leave"

    def test_stays_where_its_file_cannot_be_imported(self, tmp_path):
        kept = step(
            tmp_path, declared("other"), there=registered(path=str(tmp_path)), unusable={"flows/a.py": "no pandas"}
        )
        assert (kept.action, "cannot be imported here" in said(kept)) == ("leave", True)

    def test_stays_where_the_project_has_no_flow_at_all(self, tmp_path):
        kept = step(tmp_path, there=registered(path=str(tmp_path)))
        assert (kept.action, "as if something were not mounted" in said(kept)) == ("leave", True)

    def test_of_another_machine_stays(self, tmp_path):
        labels = {**OURS, HOST_LABEL: "elsewhere"}
        kept = step(tmp_path, declared("other"), there=registered(path="/elsewhere", labels=labels))
        assert (kept.action, "cannot be seen from here" in said(kept)) == ("leave", True)

    def test_of_a_folder_that_is_not_there_is_paused(self, tmp_path):
        paused = step(tmp_path, declared("other"), there=registered(path=str(tmp_path / "renamed")))
        assert (paused.action, "is not there" in said(paused)) == ("pause", True)

    def test_of_another_folder_goes_by_whether_its_file_is_there(self, tmp_path):
        folder = tmp_path / "second"
        (folder / "flows").mkdir(parents=True)
        there = registered(path=str(folder))
        assert step(tmp_path, declared("other"), there=there).action == "remove"
        (folder / "flows" / "a.py").touch()
        assert step(tmp_path, declared("other"), there=there).action == "leave"

    def test_of_another_project_is_none_of_ours(self, tmp_path):
        theirs = registered(labels={PROJECT_LABEL: "another"}, path=str(tmp_path))
        assert [one.deployment for one in steps(tmp_path, declared("other"), there=theirs)] == ["other/default"]
