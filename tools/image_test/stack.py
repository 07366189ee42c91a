"""compose.yaml, running: what a user, another system and an operator do with it."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from config.settings import CHECKOUT
from tools.image_test.engine import Engine

STEP_SECONDS: Final = 180.0
ROLES: Final = ("listeners", "router", "resumer", "executor", "api")
CARRIERS: Final = ("postgres", "valkey", "prefect")
PREFECT_PORT: Final = 4200
PREFECT: Final = f"http://127.0.0.1:{PREFECT_PORT}/api"
LOOPBACK: Final = "0100007F"
"""As the kernel's tables have it."""
API: Final = "http://127.0.0.1:4280"

T = TypeVar("T")


class StepFailed(Exception):
    """What was to be seen was not."""


class Stack:
    """The project of compose.yaml in ``folder``."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.inbox = folder / "inbox"
        self._folder = folder
        self._secrets = {name: os.urandom(12).hex() for name in ("POSTGRES_PASSWORD", "PREFECT_AUTH", "API_TOKEN")}

    def prepare(self) -> None:
        """What the head of compose.yaml tells its reader to do first."""
        secrets = self._secrets
        lines = [f"{name}={secrets[name]}" for name in ("POSTGRES_PASSWORD", "API_TOKEN")]
        lines.append(f"PREFECT_AUTH_STRING=sluice:{secrets['PREFECT_AUTH']}")
        access = self._folder / "access"
        command = [sys.executable, "-m", "services.cli", "acl", str(access)]
        subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True)
        lines.append((access / "valkey.env").read_text(encoding="utf-8"))
        (self._folder / ".env").write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.inbox.mkdir()
        self.inbox.chmod(0o770)
        os.chown(self.inbox, 4242, 4242)
        self.let_sluice(write=True)
        # The way to the package index inside of the build; a machine with an ordinary network needs none of this.
        (self._folder / "compose.override.yaml").write_text(
            "services: {deploy: {build: {network: host}}}\n", encoding="utf-8"
        )

    def let_sluice(self, *, write: bool) -> None:
        """Set the access list of the inbox, with its user's right to write or without."""
        right = "rwX" if write else "rX"
        self.engine.in_root("setfacl", "-R", "-m", f"u:10001:{right},d:u:10001:rwX,d:u:4242:rwX", "/checkout/inbox")

    def up(self, *options: str) -> None:
        """``docker compose up --build --detach --wait``."""
        self.engine.compose("up", "--build", "--detach", "--wait", *options)

    @staticmethod
    def files(more: str) -> list[str]:
        """The options of ``docker compose`` for compose.yaml with another file beside it."""
        return [word for name in ("compose.yaml", "compose.override.yaml", more) for word in ("--file", name)]

    def up_with(self, more: str) -> None:
        """``up`` with another file beside compose.yaml."""
        self.engine.compose(*self.files(more), "up", "--build", "--detach", "--wait")

    def read_password(self, service: str) -> None:
        """From now on ask the Prefect server that `sluice up` runs in a container of this service."""
        told = json.loads(self.engine.compose("exec", "-T", service, "sluice", "env", "--json").stdout)
        self._secrets["PREFECT_AUTH"] = told["PREFECT_API_AUTH_STRING"].partition(":")[2]

    def connections(self, service: str) -> int:
        """How many connections others have with a container of Prefect's server now."""
        (container,) = self.engine.containers(service)
        table = Path(f"/proc/{container['State']['Pid']}/net/tcp").read_text(encoding="utf-8")
        found = [line.split()[1:4] for line in table.splitlines()[1:]]
        return sum(
            ours.endswith(f":{PREFECT_PORT:04X}") and state == "01" and not theirs.startswith(LOOPBACK)
            for ours, theirs, state in found
        )

    def page(self, path: str) -> str:
        """A page of Prefect's UI."""
        with urllib.request.urlopen(PREFECT.removesuffix("/api") + path, timeout=30) as answer:
            return str(answer.read().decode())

    def drop(self, name: str, rows: int = 3, *, owner: int = 4242) -> None:
        """Save a file as user ``owner`` would."""
        draft = self.inbox.parent / name
        draft.write_text("id,name\n" + "".join(f"{row},{name}\n" for row in range(rows)), encoding="utf-8")
        draft.chmod(0o640)
        os.chown(draft, owner, owner)
        # Into the folder by copying: what is renamed into it brings its own rights along.
        self.engine.in_root("sh", "-c", f"cp --preserve=ownership /checkout/{name} /checkout/inbox/{name}")

    def is_done(self, name: str) -> bool:
        """Whether the file's run has ended well: the file lies in ``done/``."""
        if (self.inbox / "failed" / name).exists():
            note = self.inbox / "failed" / f"{name}.error.json"
            raise StepFailed(f"{name} is in failed/: {note.read_text(encoding='utf-8') if note.exists() else '?'}")
        return (self.inbox / "done" / name).exists()

    def publish(self, kind: str, event_id: str, data: dict[str, Any], *, token: str | None = None) -> int:
        """Send an event by HTTP; return the status of the answer."""
        body = {"specversion": "1.0", "type": kind, "source": "/shop", "id": event_id, "data": data}
        return self._post(f"{API}/events", body, "application/cloudevents+json", token)

    def signal(self, key: str, answer: dict[str, Any]) -> int:
        """Send a signal by HTTP; return the status of the answer."""
        return self._post(f"{API}/signals", {"key": key, "input": answer}, "application/json", None)

    def runs(self, **name: Any) -> list[dict[str, Any]]:
        """The flow runs in Prefect, the youngest first."""
        criterion = {"flow_runs": {"name": name}} if name else {}
        found: list[dict[str, Any]] = self._prefect(
            "/flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 200, **criterion}
        )
        return found

    def state(self, run_name: str) -> str:
        """The name of the state of the one run of this name; empty while there is none."""
        found = self.runs(any_=[run_name])
        if len(found) > 1:
            raise StepFailed(f"{len(found)} runs are called {run_name}")
        return str(found[0]["state_name"]) if found else ""

    def create_run(self, deployment: str, run_name: str, parameters: dict[str, Any]) -> None:
        """What "Quick run" in the Prefect UI does."""
        flow, _, name = deployment.partition("/")
        found = self._prefect(f"/deployments/name/{flow}/{name}", None)
        body = {"name": run_name, "parameters": parameters, "state": {"type": "SCHEDULED"}}
        self._prefect(f"/deployments/{found['id']}/create_flow_run", body)

    def is_healthy(self, service: str) -> bool:
        """Whether every container of a service runs and is healthy."""
        found = [one["State"] for one in self.engine.containers(service)]
        return bool(found) and all(one["Running"] and one["Health"]["Status"] == "healthy" for one in found)

    def until(self, what: str, look: Callable[[], T], *, within_seconds: float = STEP_SECONDS) -> T:
        """Ask until the answer is true; what cannot be asked yet is asked again."""
        deadline = time.monotonic() + within_seconds
        answer: object = None
        while time.monotonic() < deadline:
            try:
                found = look()
            except (OSError, ValueError) as error:
                answer = error
            else:
                if found:
                    return found
                answer = found
            time.sleep(0.25)
        raise StepFailed(f"{what} was not seen within {within_seconds:.0f} s; last answer: {answer!r}")

    def _prefect(self, path: str, body: dict[str, Any] | None) -> Any:
        login = base64.b64encode(f"sluice:{self._secrets['PREFECT_AUTH']}".encode()).decode()
        headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{PREFECT}{path}", data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def _post(self, url: str, body: dict[str, Any], kind: str, token: str | None) -> int:
        bearer = self._secrets["API_TOKEN"] if token is None else token
        headers = {"Content-Type": kind} | ({"Authorization": f"Bearer {bearer}"} if bearer else {})
        request = urllib.request.Request(url, data=json.dumps(body).encode(), headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
