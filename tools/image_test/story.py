"""What happens to an installation in containers, from its first start to its end; each step is a row of a table."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tools.image_test.engine import Engine
from tools.image_test.stack import CARRIERS, ROLES, Stack, StepFailed

MB: Final = 1_000_000
MOST_IMAGE_MB: Final = 400
MOST_WITHOUT_BYTE_CODE: Final = 10
"""Modules that a role imports and compiles each time: the small ones of packages that are hardly used."""
SMALL: Final = "compose.small.yaml"
SEVERAL: Final = "deploy/compose.prefect.yaml"
QUIET_SECONDS: Final = 20.0
"""How long nothing is asked of the stack before its memory is measured."""


class Story:
    """The steps, in their order; a later one builds on those before it."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine = engine
        self._folder = folder
        self._stack = Stack(engine, folder)
        self._rows: list[tuple[str, str, str]] = []

    def tell(self) -> int:
        """Go through all steps, print the table, and return 0 if every step passed."""
        steps: list[tuple[str, Callable[[], str]]] = [
            ("build", self._build),
            ("first start", self._first_start),
            ("memory at rest", self._memory),
            ("files of two users", self._drop),
            ("an inbox that Sluice may not write to", self._closed_inbox),
            ("an order, and its approval", self._order),
            ("SIGKILL of each container's first process", self._kill),
            ("two executors, two resumers", self._scale),
            ("an executor is stopped with runs in hand", self._stop_executor),
            ("another version while an order waits", self._upgrade),
            ("stop", self._stop),
            ("start again", self._start_again),
            ("two processes of Prefect's API", self._several_prefects),
            ("roles and Prefect's server in one container", self._small),
        ]
        try:
            for name, step in steps:
                if not self._take(name, step):
                    break
        finally:
            self._engine.compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout=10", check=False)
        passed = len(self._rows) == len(steps) and all(row[2] != "FAILED" for row in self._rows)
        print("\n| step | seen | seconds |\n| --- | --- | --- |")
        for name, seen, seconds in self._rows:
            print(f"| {name} | {seen} | {seconds} |")
        print(f"\nimage test: {'passed' if passed else 'FAILED'}")
        return 0 if passed else 1

    def _take(self, name: str, step: Callable[[], str]) -> bool:
        print(f"image test: {name} ...", flush=True)
        began = time.monotonic()
        try:
            seen = step()
        except (StepFailed, SystemExit, OSError) as error:
            self._rows.append((name, str(error).replace("\n", " ")[:300], "FAILED"))
            print(f"image test: FAILED: {error}", flush=True)
            logs = self._engine.compose("logs", "--tail=40", "--no-color", check=False).stdout
            (self._folder.parent / "failed.log").write_text(logs, encoding="utf-8")
            return False
        self._rows.append((name, seen, f"{time.monotonic() - began:.0f}"))
        print(f"image test: {name}: {seen} ({self._rows[-1][2]} s)", flush=True)
        return True

    def _build(self) -> str:
        self._stack.prepare()
        # Of a test before this one: its layers stay in the cache of builds.
        self._engine.docker("image", "rm", "--force", "sluice:local", check=False)
        self._engine.docker("image", "prune", "--force")
        self._engine.compose("build")
        (image,) = self._engine.inspect("sluice:local")
        size = image["Size"] / MB
        holds = "test -s build/sbom.json && test -s build/licences.json && test -x .venv/bin/sluice && echo whole"
        whole = self._engine.docker("run", "--rm", "--entrypoint=sh", "sluice:local", "-c", holds).stdout.strip()
        _expect(whole == "whole", "the image lacks the bill of materials, the licences or the command")
        source = "python -v -c 'import services.executor.pool.process_template as template; template.import_all()' 2>&1"
        compiled = f"{source} | grep '# code object from' | grep --invert-match --count '[.]pyc'"
        anew = self._engine.docker("run", "--rm", "--entrypoint=sh", "sluice:local", "-c", compiled, check=False).stdout
        _expect(int(anew) <= MOST_WITHOUT_BYTE_CODE, f"each process compiles {anew.strip()} modules as it starts")
        _expect(image["Config"]["Labels"].get("org.opencontainers.image.licenses") == "MIT", "the labels are missing")
        _expect(size <= MOST_IMAGE_MB, f"the image has {size:.0f} MB")
        dangling = self._engine.docker("images", "--quiet", "--filter=dangling=true").stdout.split()
        _expect(not dangling, f"{len(dangling)} images without a name")
        return f"one image of {size:.0f} MB, with its licences and bill of materials"

    def _first_start(self) -> str:
        began = time.monotonic()
        self._stack.up()
        first = time.monotonic() - began
        for service in (*CARRIERS, *ROLES):
            _expect(self._stack.is_healthy(service), f"{service} is not healthy")
        before = self._ids()
        began = time.monotonic()
        self._stack.up()
        _expect(self._ids() == before, "a second `up --build` made containers anew")
        for one in self._engine.containers():
            _expect(one["HostConfig"]["ReadonlyRootfs"], f"{one['Name']} can write to its root file system")
        second = time.monotonic() - began
        return f"all healthy after {first:.0f} s; a second `up --build` takes {second:.1f} s and changes nothing"

    def _memory(self) -> str:
        return self._memory_of(*CARRIERS, *ROLES)

    def _memory_of(self, *services: str) -> str:
        time.sleep(QUIET_SECONDS)
        sums = {service: _set_size(self._pids(service)) / MB for service in services}
        parts = ", ".join(f"{service} {size:.0f}" for service, size in sums.items())
        return f"{sum(sums.values()):.0f} MB ({parts})"

    def _drop(self) -> str:
        self._stack.drop("by-user.csv", owner=4242)
        self._stack.drop("by-root.csv", owner=0)
        for name in ("by-user.csv", "by-root.csv"):
            self._stack.until(f"{name} in done/", lambda name=name: self._stack.is_done(name))  # type: ignore[misc]
        return "both loaded, and moved to done/"

    def _closed_inbox(self) -> str:
        self._stack.let_sluice(write=False)
        self._stack.until("listeners unhealthy", lambda: not self._stack.is_healthy("listeners"))
        said = self._engine.compose("exec", "-T", "router", "sluice", "status", check=False)
        _expect(said.returncode and "watch-not-writable" in said.stderr, f"sluice status said {said.stderr}")
        said = self._engine.compose("exec", "-T", "listeners", "sluice", "status", check=False)
        _expect("redis-refuses" in said.stderr, f"sluice status said as a user with few rights: {said.stderr}")
        self._stack.let_sluice(write=True)
        self._stack.until("listeners healthy", lambda: self._stack.is_healthy("listeners"))
        return "the listeners are unhealthy, and `sluice status` says why; healthy again with the right to write"

    def _order(self) -> str:
        refused = self._stack.publish("order.created", "none", {}, token="")
        _expect(refused == 401, f"an event without the token was answered with {refused}")
        self._place("1042")
        self._approve("1042")
        return "401 without the token; the run waited, and was Completed with the answer"

    def _kill(self) -> str:
        self._place("kill")
        times = [self._kill_one(service) for service in (*CARRIERS, *ROLES) if service != "executor"]
        self._approve("kill")
        self._place("lost")
        times.append(self._kill_one("executor"))
        # Without `on_lost: restart`, a run whose process was killed is Crashed.
        self._stack.until("order lost is Crashed", lambda: self._stack.state("order lost") == "Crashed")
        names = [run["name"] for run in self._stack.runs()]
        twice = [name for name, group in itertools.groupby(sorted(names)) if len(list(group)) > 1 and "ingest" in name]
        _expect(not twice, f"more than one run of {twice}")
        return (
            "a file dropped at each became one run; an order waited on through seven of them, and its executor's end "
            f"made one Crashed; healthy after {', '.join(times)} s"
        )

    def _kill_one(self, service: str) -> str:
        (pid,) = self._pids(service)
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        name = f"killed-{service}.csv"
        self._stack.drop(name)
        self._stack.until(f"{name} in done/", lambda: self._stack.is_done(name))
        self._stack.until(f"{service} healthy", lambda: self._stack.is_healthy(service))
        return f"{service} {time.monotonic() - began:.0f}"

    def _scale(self) -> str:
        self._stack.up("--no-recreate", "--scale", "executor=2", "--scale", "resumer=2")
        for service in ("executor", "resumer"):
            _expect(len(self._engine.containers(service)) == 2, f"there are not two of {service}")
        names = [f"scaled-{number}.csv" for number in range(20)]
        for name in names:
            self._stack.drop(name)
        for name in names:
            self._stack.until(f"{name} in done/", lambda name=name: self._stack.is_done(name))  # type: ignore[misc]
        return "all healthy; twenty files loaded, one run each"

    def _stop_executor(self) -> str:
        """One run that fits into the grace, and one that waits for its answer in its process."""
        self._place("handed-back")
        stopped, *_ = self._engine.containers("executor")
        began = time.monotonic()
        for one in self._engine.containers("executor"):
            self._engine.docker("stop", one["Id"])
        seconds = time.monotonic() - began
        codes = {one["State"]["ExitCode"] for one in self._engine.containers("executor")}
        _expect(codes == {0}, f"the executors ended with {codes}, of which {stopped['Name']} is one")
        state = self._stack.state("order handed-back")
        _expect(state not in {"Crashed", "Failed", "Cancelled"}, f"the order's run is {state}")
        self._stack.up("--no-recreate", "--scale", "executor=2", "--scale", "resumer=2")
        self._approve("handed-back")
        return f"exit code 0; the order's run was {state} meanwhile, and went on; both stopped in {seconds:.0f} s"

    def _upgrade(self) -> str:
        self._place("upgrade")
        version = self._folder / "services" / "upgraded.py"
        version.write_text('"""Another version."""\n', encoding="utf-8")
        before = self._ids()
        began = time.monotonic()
        self._stack.up()
        seconds = time.monotonic() - began
        kept = {name for name, container in self._ids().items() if before.get(name) == container}
        expected = {"postgres", "valkey"}
        _expect({name.split("-")[1] for name in kept} == expected, f"kept were {sorted(kept)}")
        self._approve("upgrade")
        self._stack.drop("upgraded.csv")
        self._stack.until("upgraded.csv in done/", lambda: self._stack.is_done("upgraded.csv"))
        return f"only ours were replaced, healthy after {seconds:.0f} s; the order was approved afterwards"

    def _stop(self) -> str:
        self._place("night")
        began = time.monotonic()
        self._engine.compose("stop")
        seconds = time.monotonic() - began
        codes = {one["Name"].lstrip("/"): one["State"]["ExitCode"] for one in self._engine.containers()}
        # Prefect's server ends by the signal, once it has closed everything.
        bad = {name: code for name, code in codes.items() if code and (name, code) != ("sluice-prefect-1", 143)}
        _expect(not bad, f"exit codes: {bad}")
        return f"every container within its grace and in order, in {seconds:.0f} s"

    def _start_again(self) -> str:
        self._stack.up()
        runs = len(self._stack.runs())
        self._approve("night")
        self._stack.drop("morning.csv")
        self._stack.until("morning.csv in done/", lambda: self._stack.is_done("morning.csv"))
        return f"{runs} runs are still there; the order that waited over it was approved"

    def _several_prefects(self) -> str:
        began = time.monotonic()
        self._stack.up_with(SEVERAL)
        seconds = time.monotonic() - began
        self._place("several")
        self._stack.drop("several.csv")
        self._stack.until("several.csv in done/", lambda: self._stack.is_done("several.csv"))
        self._approve("several")
        memory = self._memory_of(*CARRIERS, "prefect-more", "prefect-services", *ROLES)
        ours, more = (self._stack.connections(name) for name in ("prefect", "prefect-more"))
        _expect(ours and more, f"the two processes have {ours} and {more} connections")
        return f"all healthy after {seconds:.0f} s; the roles have {ours} and {more} connections with them; {memory}"

    def _small(self) -> str:
        self._engine.compose("--profile", "*", "down", "--remove-orphans")
        self._stack.up_with(SMALL)
        self._stack.read_password("sluice")
        memory = self._memory_of("valkey", "sluice")
        _expect("<html" in self._stack.page("/v2/"), "Prefect's UI has no page")
        self._place("small")
        restarted = self._kill_one("sluice")
        self._stack.until("order small is Crashed", lambda: self._stack.state("order small") == "Crashed")
        self._place("smaller")
        self._approve("smaller")
        began = time.monotonic()
        self._engine.compose(*self._stack.files(SMALL), "stop")
        codes = {one["Name"]: one["State"]["ExitCode"] for one in self._engine.containers()}
        _expect(not any(codes.values()), f"exit codes: {codes}")
        stopped = time.monotonic() - began
        return f"{memory}; a SIGKILL made one run Crashed, healthy after {restarted} s; stopped in {stopped:.0f} s"

    def _place(self, order: str) -> None:
        """Send an order, and wait until its run waits."""
        answer = self._stack.publish("order.created", f"order-{order}", {"order_id": order, "amount": 99.5})
        _expect(answer == 202, f"an order was answered with {answer}")
        self._stack.until(f"order {order} waits", lambda: self._stack.state(f"order {order}") == "Paused")

    def _approve(self, order: str) -> None:
        """Answer the wait of an order, and wait for the end of its run."""
        self._stack.until(
            "the API takes signals", lambda: self._stack.signal(f"order-{order}", {"approved": True}) == 202
        )
        self._stack.until(f"order {order} is over", lambda: self._stack.state(f"order {order}") == "Completed")

    def _ids(self) -> dict[str, str]:
        return {one["Name"].lstrip("/"): one["Id"] for one in self._engine.containers() if one["State"]["Running"]}

    def _pids(self, service: str) -> list[int]:
        return [one["State"]["Pid"] for one in self._engine.containers(service) if one["State"]["Running"]]


def _expect(condition: Any, otherwise: str) -> None:
    if not condition:
        raise StepFailed(otherwise)


def _set_size(roots: list[int]) -> int:
    """The proportional set size of processes and everything below them, in bytes."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        children.setdefault(int(fields[1]), []).append(int(status.parent.name))
    total, todo = 0, list(roots)
    while todo:
        pid = todo.pop()
        todo += children.get(pid, [])
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        total += next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total
