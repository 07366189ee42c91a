"""What a run may have under Prefect's own runner, it has here: the features one by one, in both modes."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.integration.executor.conftest import FINAL, Bench
from tests.support.waiting import eventually

HEAD = """
import asyncio, json, logging, os, sys, time
from datetime import date, datetime, timedelta
from enum import Enum
from pathlib import Path
from prefect import flow, task, get_run_logger, unmapped
from pydantic import BaseModel

OUT = Path(__file__).with_suffix(".out")

def out(value):
    OUT.write_text(json.dumps(value))

def note(name):
    def hook(flow, flow_run, state):
        with OUT.with_suffix(".hooks").open("a") as file:
            file.write(f"{name}:{state.name}\\n")
    hook.__name__ = name
    return hook
"""


@dataclass
class Case:
    source: str
    state: str = "COMPLETED"
    parameters: dict[str, Any] = field(default_factory=dict)
    out: Any = None
    message: str = ""
    hooks: tuple[str, ...] = ()
    body: dict[str, Any] = field(default_factory=dict)
    check: Callable[[Bench, dict[str, Any]], Awaitable[None]] | None = None


async def has_two_subflow_runs(bench: Bench, run: dict[str, Any]) -> None:
    body = {"flow_runs": {"parent_flow_run_id": {"any_": [run["id"]]}}}
    children = await bench.api.request("POST", "/flow_runs/filter", json=body)
    assert sorted(child["state_type"] for child in children) == ["COMPLETED", "COMPLETED"]


async def ran_three_times(bench: Bench, run: dict[str, Any]) -> None:
    tries = ["Running", "AwaitingRetry", "Running", "AwaitingRetry", "Running"]
    assert await bench.states(run["id"]) == ["Scheduled", "Pending", *tries, "Completed"]


async def has_an_artifact(bench: Bench, run: dict[str, Any]) -> None:
    body = {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}}
    (artifact,) = await bench.api.request("POST", "/artifacts/filter", json=body)
    assert artifact["key"] == "the-table"


async def logged_in_order(bench: Bench, run: dict[str, Any]) -> None:
    logs = await bench.all_logs(run["id"])
    assert [line for line in logs if line.startswith("line ")] == [f"line {number}" for number in range(300)]
    assert [line for line in logs if line.startswith("printed ")] == [f"printed {number}" for number in range(20)]


async def is_suspended(bench: Bench, run: dict[str, Any]) -> None:
    assert run["state_name"] == "Suspended"
    await bench.api.request("POST", f"/flow_runs/{run['id']}/resume", json={})
    await bench.reach(run["id"], "COMPLETED", within_seconds=60)
    assert (bench.folder / "case_suspends.out").read_text() == '"resumed"'


CASES = {
    "sync": Case("@flow\ndef main(a: int, b: str = 'x'): out([a, b])", parameters={"a": 1}, out=[1, "x"]),
    "async": Case("@flow\nasync def main(): await asyncio.sleep(0.01); out('ran')", out="ran"),
    "generator": Case("@flow\ndef main():\n    yield 1\n    out('drained')\n    yield 2", out="drained"),
    "async_generator": Case("@flow\nasync def main():\n    yield 1\n    out('drained')\n    yield 2", out="drained"),
    "typed_parameters": Case(
        """
class Colour(Enum):
    RED = "red"

class Order(BaseModel):
    number: int
    due: date

@flow
def main(order: Order, colour: Colour, when: datetime, wait: timedelta, names: list[str], table: dict[str, float]):
    out([order.number, order.due.year, colour.name, when.tzinfo is not None, wait.total_seconds(), names, table])
""",
        parameters={
            "order": {"number": "7", "due": "2026-01-31"},
            "colour": "red",
            "when": "2026-01-31T10:00:00Z",
            "wait": 90,
            "names": ["ä", "b"],
            "table": {"x": 1},
        },
        out=[7, 2026, "RED", True, 90.0, ["ä", "b"], {"x": 1.0}],
    ),
    "wrong_parameters": Case(
        "@flow\ndef main(a: int): pass", parameters={"a": "no"}, state="FAILED", message="Validation"
    ),
    "subflows": Case(
        "@flow\ndef inner(n): return n + 1\n\n@flow\ndef main(): out(inner(1) + inner(2))",
        out=5,
        check=has_two_subflow_runs,
    ),
    "async_subflow": Case("@flow\nasync def inner(n): return n\n\n@flow\nasync def main(): out(await inner(3))", out=3),
    "threads": Case(
        """
from prefect.task_runners import ThreadPoolTaskRunner

@task
def square(n): return n * n

@flow(task_runner=ThreadPoolTaskRunner(max_workers=3))
def main():
    futures = square.map(range(5))
    out([future.result() for future in futures])
""",
        out=[0, 1, 4, 9, 16],
    ),
    "processes": Case(
        """
from prefect.task_runners import ProcessPoolTaskRunner

@task
def pid(n): return os.getpid()

@flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
def main():
    out(pid.submit(1).result() != os.getpid())
""",
        out=True,
    ),
    "multiprocessing": Case(
        """
import multiprocessing

def work(n): return n * 2

@flow
def main():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        out(pool.map(abs, [-1, -2]))
""",
        out=[1, 2],
    ),
    "flow_retries": Case(
        """
@flow(retries=2)
def main():
    tries = int(OUT.read_text()) + 1 if OUT.exists() else 1
    out(tries)
    if tries < 3:
        raise ValueError("again")
""",
        out=3,
        check=ran_three_times,
    ),
    "task_retries": Case(
        """
COUNT = []

@task(retries=3, retry_delay_seconds=0)
def flaky():
    COUNT.append(1)
    if len(COUNT) < 3:
        raise ValueError("again")
    return len(COUNT)

@flow
def main(): out(flaky())
""",
        out=3,
    ),
    "timeout": Case(
        "@flow(timeout_seconds=0.5)\ndef main(): time.sleep(20)", state="FAILED", message="exceeded timeout"
    ),
    "async_timeout": Case(
        "@flow(timeout_seconds=0.5)\nasync def main(): await asyncio.sleep(20)",
        state="FAILED",
        message="exceeded timeout",
    ),
    "failing": Case("@flow\ndef main(): raise KeyError('lost')", state="FAILED", message="lost"),
    "exits": Case("@flow\ndef main(): sys.exit(4)", state="CRASHED"),
    "hooks_completed": Case(
        "@flow(on_completion=[note('a'), note('b')], on_running=[note('r')])\ndef main(): pass",
        hooks=("r:Running", "a:Completed", "b:Completed"),
    ),
    "hooks_failed": Case("@flow(on_failure=[note('f')])\ndef main(): 1 / 0", state="FAILED", hooks=("f:Failed",)),
    "returned_state": Case(
        "from prefect.states import Failed\n@flow\ndef main(): return Failed(message='on purpose')",
        state="FAILED",
        message="on purpose",
    ),
    "persisted_results": Case(
        """
@task(persist_result=True)
def expensive():
    with OUT.with_suffix(".calls").open("a") as file:
        file.write("x")
    return 41

@flow(persist_result=True)
def main():
    value = expensive()
    out(value + 1)
    return value
""",
        out=42,
    ),
    "cached_tasks": Case(
        """
from prefect.cache_policies import INPUTS

@task(cache_policy=INPUTS, persist_result=True)
def slow(n):
    with OUT.with_suffix(".calls").open("a") as file:
        file.write("x")
    return n

@flow
def main():
    slow(OUT.name); slow(OUT.name)
    out(OUT.with_suffix(".calls").read_text())
""",
        out="x",
    ),
    "runtime": Case(
        """
from prefect import runtime

@flow
def main(a: int):
    out([runtime.flow_run.id == os.environ["PREFECT__FLOW_RUN_ID"], runtime.deployment.name, runtime.flow_run.name,
         runtime.flow_run.parameters, "blue" in runtime.flow_run.tags, runtime.flow_run.run_count])
""",
        parameters={"a": 5},
        body={"name": "named", "tags": ["blue"]},
        out=[True, "default", "named", {"a": 5}, True, 1],
    ),
    "run_name": Case(
        "@flow(flow_run_name='made of {a}')\ndef main(a: int):\n"
        "    from prefect import runtime\n    out(runtime.flow_run.name)",
        parameters={"a": 5},
        out="made of 5",
    ),
    "logs": Case(
        """
@flow(log_prints=True)
def main():
    logger = get_run_logger()
    for number in range(300):
        logger.info("line %d", number)
    for number in range(20):
        print("printed", number)
""",
        check=logged_in_order,
    ),
    "artifacts": Case(
        "from prefect.artifacts import create_table_artifact\n@flow\ndef main():\n"
        "    create_table_artifact(key='the-table', table=[{'a': 1}])",
        check=has_an_artifact,
    ),
    "variables_and_blocks": Case(
        """
from prefect.blocks.system import Secret
from prefect.variables import Variable

@flow
def main(name: str):
    Variable.set(name, "v", overwrite=True)
    Secret(value="s").save(name.replace("_", "-"), overwrite=True)
    out([Variable.get(name), Secret.load(name.replace("_", "-")).get()])
""",
        parameters={"name": f"exec_{os.getpid()}"},
        out=["v", "s"],
    ),
    "concurrency": Case(
        """
from prefect.concurrency.sync import concurrency

@flow
def main():
    with concurrency("not-there", occupy=1, strict=False):
        out("inside")
""",
        out="inside",
    ),
    "global_limit": Case(
        """
from prefect import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency

@task
def alone(name):
    with concurrency(name, occupy=1, strict=True, timeout_seconds=60):
        with OUT.with_suffix(".inside").open("a") as file:
            file.write("in ")
        time.sleep(0.2)
        with OUT.with_suffix(".inside").open("a") as file:
            file.write("out ")

@flow
def main(name: str):
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
    for future in alone.map([name] * 3):
        future.result()
    out(OUT.with_suffix(".inside").read_text().split())
""",
        parameters={"name": f"limit-{os.getpid()}-{os.urandom(3).hex()}"},
        out=["in", "out"] * 3,
    ),
    "environment": Case(
        """
@flow
def main():
    out([os.environ["GIVEN"], os.environ.get("SLUICE_API__TOKEN"), os.getcwd() == str(Path(__file__).resolve().parent),
         __name__.startswith("case_environment"), Path(sys.argv[0]).name])
""",
        body={"job_variables": {"env": {"GIVEN": "yes"}}},
        out=["yes", None, True, True, "engine.py"],
    ),
    "prefect_settings": Case(
        """
from prefect.settings import get_current_settings

@flow
def main():
    out([get_current_settings().results.persist_by_default, os.environ["PREFECT_RESULTS_PERSIST_BY_DEFAULT"]])
""",
        body={"job_variables": {"env": {"PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true"}}},
        out=[True, "true"],
    ),
    "signals_in_threads": Case(
        """
import threading

@flow
def main():
    thread = threading.Thread(target=lambda: (time.sleep(0.3), out("late")))
    thread.start()
""",
        out="late",
    ),
    "suspends": Case(
        """
from prefect.flow_runs import suspend_flow_run

@flow(persist_result=True)
def main():
    suspend_flow_run(timeout=60)
    out("resumed")
""",
        state="PAUSED",
        check=is_suspended,
    ),
    "class_method": Case(
        "class Jobs:\n    @staticmethod\n    @flow(name='of-a-class')\n    def main(): out('called')\n\n"
        "main = Jobs.main",
        out="called",
    ),
    "undecorated": Case("def main(): out('made a flow')", out="made a flow"),
}


# A fresh interpreter differs from a fork in how it comes to its environment: that is tried again, not everything.
IN_BOTH = ("environment", "prefect_settings", "processes", "hooks_failed", "exits")


@pytest.mark.parametrize("mode", ["fork", "subprocess"])
@pytest.mark.timeout(300)
async def test_everything_that_a_run_may_have(bench: Bench, mode: str):
    await bench.start(slots=4, mode=mode)
    async with asyncio.TaskGroup() as group:
        for name in CASES if mode == "fork" else IN_BOTH:
            group.create_task(hold(bench, name, CASES[name]), name=name)


async def hold(bench: Bench, name: str, case: Case) -> None:
    deployment = await bench.deploy(HEAD + case.source, file=f"case_{name}.py")
    run_id = await bench.create(deployment, parameters=case.parameters, **case.body)
    run = await bench.reach(run_id, case.state, *FINAL, within_seconds=200)
    assert run["state_type"] == case.state, (name, run["state"]["message"])
    assert case.message in (run["state"]["message"] or ""), (name, run["state"]["message"])
    if case.check is not None:
        await case.check(bench, run)
    elif case.out is not None:
        assert json.loads(await text(bench.folder / f"case_{name}.out")) == case.out, name
    if case.hooks:
        hooks = bench.folder / f"case_{name}.hooks"
        await eventually(lambda: asyncio.sleep(0, written(hooks) == case.hooks), what=f"the hooks of {name}")


def written(path: Path) -> tuple[str, ...]:
    return tuple(path.read_text().split()) if path.exists() else ()


async def text(path: Path) -> str:
    return await eventually(lambda: asyncio.sleep(0, path.read_text() if path.exists() else ""), what=str(path))
