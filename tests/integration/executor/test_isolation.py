"""Many runs of mixed flows, each finding its process as Prefect's own runner would have made it."""

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.integration.executor.conftest import Bench, start_elsewhere

SOME = 16
FEW_KINDS = ("async", "exiting", "logging", "tasks")
"""Each costs a start of Prefect's own engine to compare with: the soak tries every kind."""
MANY = 500

# Every flow reports what it finds at its first line, then spoils what it can before it does its own kind of work.
HEAD = """
import asyncio, decimal, json, logging, os, random, signal, sys, threading, warnings
from pathlib import Path
from prefect import flow, task

def report(out):
    found = {
        "cwd": os.getcwd(),
        "argv": [Path(word).name for word in sys.argv],
        "main": getattr(sys.modules["__main__"].__spec__, "name", None),
        "environment": sorted(
            name for name in {*os.environ} - {"SLUICE_FOLDERS", "SLUICE_CONTRACTS"}
            if name.startswith(("SLUICE", "SPOILT", "PREFECT__"))
        ),
        "spoilt": sorted(name for name in sys.modules if name.startswith("spoilt")),
        "threads": sorted(thread.name for thread in threading.enumerate() if not thread.daemon),
        "handlers": len(logging.getLogger("shared").handlers),
        "precision": decimal.getcontext().prec,
        "filters": len(warnings.filters) > 1000,
        "sigint": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        "umask": os.umask(0o022),
        "loop": _loop(),
        "path": [entry for entry in sys.path if "python3" not in entry and not entry.endswith((".zip", "/shelf"))],
        "own": sorted({name.partition(".")[0] for name in sys.modules} & {"services", "config", "events", "flows"}),
    }
    with open(out, "w") as file:
        json.dump([found, random.random(), os.getpid()], file)
    os.environ["SPOILT"] = "yes"
    os.chdir("/")
    random.seed(1)
    sys.modules["spoilt"] = sys
    decimal.getcontext().prec = 3
    logging.getLogger("shared").addHandler(logging.NullHandler())
    threading.current_thread().name = "spoilt"
    os.umask(0o077)

def _loop():
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
"""
KINDS = {
    "plain": "@flow\ndef main(out): report(out)",
    "async": "@flow\nasync def main(out):\n    report(out)\n    await asyncio.sleep(0.01)",
    "tasks": "@task\ndef one(n): return n\n\n@flow\ndef main(out):\n    report(out)\n"
    "    [future.result() for future in one.map(range(3))]",
    "subflow": "@flow\ndef inner(): return 1\n\n@flow\ndef main(out):\n    report(out)\n    inner()",
    "failing": "@flow\ndef main(out):\n    report(out)\n    raise ValueError('on purpose')",
    "exiting": "@flow\ndef main(out):\n    report(out)\n    os._exit(9)",
    "threading": "@flow\ndef main(out):\n    report(out)\n    threading.Thread(target=lambda: None).start()",
    "logging": "@flow(log_prints=True)\ndef main(out):\n    report(out)\n    print('x' * 1000)",
}
ENDS = {"failing": "FAILED", "exiting": "CRASHED"}


@pytest.mark.timeout(600)
async def test_mixed_runs_find_what_they_would_under_prefects_runner(bench: Bench):
    await compare(bench, SOME, FEW_KINDS)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_five_hundred_mixed_runs_find_what_they_would_under_prefects_runner(bench: Bench):
    await compare(bench, MANY, tuple(KINDS))


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """A shell starts what it runs in the background without SIGINT, and Prefect's runner hands that on."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


async def compare(bench: Bench, count: int, of_kinds: tuple[str, ...]) -> None:
    deployments = {kind: await bench.deploy(HEAD + KINDS[kind], file=f"kind_{kind}.py") for kind in of_kinds}
    expected = {kind: await under_prefect(bench, kind, deployment) for kind, deployment in deployments.items()}
    kinds = [of_kinds[number % len(of_kinds)] for number in range(count)]
    outs = [bench.folder / f"{number}.json" for number in range(count)]
    runs = [
        await bench.create(deployments[kind], parameters={"out": str(out)})
        for kind, out in zip(kinds, outs, strict=True)
    ]
    machine = start_elsewhere(bench, slots=4, fresh=True)
    try:
        draws = Counter[float]()
        for kind, out, run_id in zip(kinds, outs, runs, strict=True):
            run = await bench.reach(run_id, within_seconds=60 + count * 3)
            assert run["state_type"] == ENDS.get(kind, "COMPLETED"), (kind, run["state"]["message"])
            assert run["run_count"] == 1
            found, draw, _ = json.loads(out.read_text())
            assert found == expected[kind], kind
            draws[draw] += 1
        assert draws.most_common(1)[0][1] == 1
    finally:
        machine.terminate()
        await asyncio.to_thread(machine.wait, 20)


async def under_prefect(bench: Bench, kind: str, deployment: str) -> dict:
    """The report of the same flow when Prefect's own engine is started for its run, as its runner starts it."""
    out = bench.folder / f"expected-{kind}.json"
    created = await bench.api.request(
        "POST",
        f"/deployments/{deployment}/create_flow_run",
        json={"parameters": {"out": str(out)}, "state": {"type": "PENDING"}},
    )
    # The tests' own PYTHONPATH is not one that a runner would have.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE", "PYTHONPATH"))}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "prefect.engine",
        cwd=bench.folder,
        env={
            **environment,
            "PREFECT__FLOW_RUN_ID": created["id"],
            "PREFECT__DEPLOYMENT_NAME": "default",
            "PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS": "false",
        },
    )
    await process.wait()
    found, _, _ = json.loads(out.read_text())
    return found
