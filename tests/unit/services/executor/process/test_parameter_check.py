"""Parameters that a flow does not take, or misses, are named with the flow's place and what was probably meant."""

from __future__ import annotations

from typing import Any

import pytest
from prefect import flow

from services.executor.process.parameter_check import parameter_problem


@flow
def load(path: str, rows: int = 3) -> None: ...


@flow
def bare() -> None: ...


@flow
def anything(**given: Any) -> None: ...


@pytest.mark.parametrize("given", [{"path": "a"}, {"path": "a", "rows": 1}])
def test_what_fits_is_no_problem(given: dict[str, Any]) -> None:
    assert parameter_problem(load, given) is None


def test_a_flow_that_takes_anything_is_given_anything() -> None:
    assert parameter_problem(anything, {"whatever": 1}) is None


def test_an_unknown_parameter_is_named_with_the_one_that_was_meant() -> None:
    problem = parameter_problem(load, {"path": "a", "row": 1})
    assert problem is not None
    assert "takes no parameter 'row'" in problem
    assert "rows" in problem
    assert f"{__file__}, line" in problem


def test_a_flow_without_parameters_says_so() -> None:
    problem = parameter_problem(bare, {"path": "a"})
    assert problem is not None
    assert "takes no parameters, and the run gives it 'path'" in problem


def test_a_missing_parameter_is_named() -> None:
    problem = parameter_problem(load, {"rows": 1})
    assert problem is not None
    assert "needs the parameter 'path'" in problem
