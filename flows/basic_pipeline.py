"""The first flow to read: prepare, process, validate. Tasks hand their results to each other as functions do.

Needs nothing. Run it with ``python -m flows.basic_pipeline``, from the Prefect UI, or by a rule.
"""

from __future__ import annotations

from typing import Any

from prefect import State, flow, get_run_logger, task
from prefect.states import Completed, Failed

from sluice import run_name, visible


@task
def prepare(lines: list[str]) -> list[str]:
    """Take away what is no data: surrounding space, empty lines, comments."""
    stripped = (line.strip() for line in lines)
    return [line for line in stripped if line and not line.startswith("#")]


@task
def process(line: str) -> dict[str, Any]:
    """One line, ``name,amount``, as a record; `ValueError` says what is wrong with it."""
    name, comma, amount = line.partition(",")
    if not comma:
        raise ValueError(f"{line!r} has no comma: write name,amount")
    try:
        return {"name": name.strip(), "amount": float(amount)}
    except ValueError:
        raise ValueError(f"{amount.strip()!r} in {line!r} is not a number") from None


@task
def validate(records: list[dict[str, Any]]) -> list[str]:
    """What is wrong with the records together, in words; nothing when they are right."""
    problems = [f"the amount of {one['name']} is negative" for one in records if one["amount"] < 0]
    names = [one["name"] for one in records]
    problems += [f"{name} comes more than once" for name in sorted({one for one in names if names.count(one) > 1})]
    return problems if records else ["there are no records"]


@flow(name="basic-pipeline", flow_run_name=run_name("basic pipeline"))
def basic_pipeline(lines: list[str] | None = None) -> State[float]:
    """Turn lines of ``name,amount`` into records, check them, and add the amounts up.

    Needs nothing; without ``lines`` it takes an example. A line that is none, or records that are not right, fail the
    run with a sentence.
    """
    records = [process(line) for line in prepare(lines or ["# name,amount", "apples, 3.5", "", "pears, 4"])]
    problems = validate(records)
    if problems:
        return Failed(message=visible("; ".join(problems)))
    total = sum(record["amount"] for record in records)
    get_run_logger().info("%s records, together %s", len(records), total)
    return Completed(message=f"{len(records)} records, together {total:g}", data=total)


if __name__ == "__main__":
    basic_pipeline()
