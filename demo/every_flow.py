"""Every flow of `flows/` once, started as a user starts one: ``sluice runs start … --watch``."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from demo.installation import Failed, Installation

PLANTED: Final = "planted-0b7e42c9-token"
"""The token of the webhook, which must be in no file of the home when everything has run."""
SECRETS: Final = {"WEBHOOK_TOKEN": PLANTED, "SLUICE_MASKING_SECRET": "planted-5d1fa3-masking-secret"}
PRICES: Final = b'{"apples": 3.5}'


def play(installation: Installation, home: Path, address: str) -> Iterator[str]:
    """Start the flows one after the other; a line for each that did what it should. Raises `Failed`."""
    files = _files(home)
    _set_variable(installation, "webhook_url_development", f"{address}/hook")
    cases: dict[str, dict[str, Any]] = {
        "basic-pipeline": {},
        "fan-out": {"items": ["1", "two", "3"]},
        "branches": {},
        "task-runners": {"count": 2, "wait_seconds": 0.1, "rounds": 10_000},
        "batches-and-caching": {"count": 10_000},
        "fallback-source": {"primary": f"{address}/broken", "fallback": address, "first_pause_seconds": 0},
        "resilient-fetch": {"url": address},
        "transfer-file": {"source": str(files / "rows.csv"), "target": f"file://{home}/copied.csv"},
        "mask-people": {},
        "ingest-file": {"path": str(files / "rows.csv")},
        "csv-to-parquet": {"path": str(files / "rows.csv"), "target": str(home / "rows.parquet")},
        "folder-report": {"folder": str(files)},
        "load-measurements": {"rows": [{"sensor": "roof", "value": 21.5}]},
        "notify-webhook": {"text": "all flows are run"},
        "performance-monitor": {},
        "health-check": {"most_failures": 100, "most_dead_letters": 100},
        "daily-report": {},
    }
    known = _deployments(installation)
    waiting = {"paused-loop", "order-approval"}
    if unplanned := known - set(cases) - waiting - {"run-in-container"}:
        raise Failed(f"these flows are not run here: {', '.join(sorted(unplanned))}")
    for flow, parameters in cases.items():
        yield f"{flow}: {_started(installation, flow, parameters)['message']}"
    container = _started(installation, "run-in-container", {}, may_fail=True)
    if container["state_type"] != "COMPLETED" and "no Docker host" not in container["message"]:
        raise Failed(f"run-in-container: {container['message']}")
    yield f"run-in-container: {container['message']}"
    yield f"paused-loop: {_paused(installation)['message']}"


def look_for_secrets(home: Path) -> None:
    """Raises `Failed` naming every file of the home with a planted secret in it: Redis, Prefect, logs, results."""
    found = [
        f"{path} has {name}"
        for path in sorted(home.rglob("*"))
        if path.is_file()
        for name, secret in SECRETS.items()
        if secret.encode() in path.read_bytes()
    ]
    if found:
        raise Failed(f"a secret is where it must not be: {'; '.join(found)}")


@contextmanager
def web_server(taken: list[bytes] | None = None) -> Iterator[str]:
    """Serves prices, fails at ``/broken``; ``/hook`` takes and ``/refuses`` does not, and both repeat the token.

    What is posted to ``/hook`` is put into ``taken``.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if taken is not None and self.path == "/hook":
                taken.append(body)
            repeats = self.path in {"/hook", "/refuses"}
            said = f"you sent {self.headers['Authorization']}".encode() if repeats else PRICES
            self.send_response({"/broken": 503, "/refuses": 400}.get(self.path, 200))
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_POST = do_GET  # noqa: N815 - the server's names

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _files(home: Path) -> Path:
    """A folder that flows may read and nobody watches, with a file of rows: the archive folder of the inbox."""
    folder = home / "inbox" / "done"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.csv").write_text("city,degrees\nOslo,4.5\nRome,19\n", encoding="utf-8")
    return folder


def _started(
    installation: Installation, flow: str, parameters: dict[str, Any], *, may_fail: bool = False
) -> dict[str, Any]:
    given = [part for name, value in parameters.items() for part in ("--param", f"{name}={json.dumps(value)}")]
    answer = installation.sluice("runs", "start", flow, *given, "--watch", "--json", check=False, within_seconds=240)
    try:
        run: dict[str, Any] = json.loads(answer.stdout)
    except ValueError:
        raise Failed(f"{flow}: {answer.stdout[-500:]} {answer.stderr[-500:]}") from None
    if run["state_type"] != "COMPLETED" and not may_fail:
        raise Failed(f"{flow} ended as {run['state']}: {run['message']}")
    return run


def _paused(installation: Installation) -> dict[str, Any]:
    run = json.loads(installation.sluice("runs", "start", "paused-loop", "--json").stdout)

    def shown() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(installation.sluice("runs", "show", run["id"], "--json").stdout)
        return found

    installation.until(lambda: shown()["state"] == "Paused", "the loop is Paused")
    installation.sluice("runs", "resume", run["id"])
    return installation.until(
        lambda: found if (found := shown())["state_type"] == "COMPLETED" else None, "the loop goes on to its end"
    )


def _deployments(installation: Installation) -> set[str]:
    names = {one["id"]: one["name"] for one in installation.prefect.post("/flows/filter", json={}).json()}
    return {names[one["flow_id"]] for one in installation.prefect.post("/deployments/filter", json={}).json()}


def _set_variable(installation: Installation, name: str, value: str) -> None:
    installation.prefect.post("/variables/", json={"name": name, "value": value}).raise_for_status()
