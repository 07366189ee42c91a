"""The process that serves a project's own HTTP routes, with the project's own packages on its import path.

Arguments of ``python -m services.listeners.http.endpoint_process``: the project's folder, ``module:name`` of the
routes, and the descriptors of the socket to serve on and of the pipe for one line of JSON: the routes, or the problem.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import uvicorn

from config.logs import print_traceback, speak_as_parent
from services.common.project_imports import enter_project, leave_checkout

PREFIX: Final = "/endpoints"
"""The path below which the routes are reached."""


def load_application(reference: str) -> Any:
    """Return the ASGI application at ``module:name``; for a FastAPI router, an application around it.

    Raises whatever the project's code raises, and `TypeError` for an object that serves no HTTP.
    """
    from fastapi import APIRouter, FastAPI

    module, _, names = reference.partition(":")
    found: Any = importlib.import_module(module)
    for name in names.split("."):
        found = getattr(found, name)
    if isinstance(found, APIRouter):
        application = FastAPI(title=Path.cwd().name)
        application.include_router(found)
        return application
    if not callable(found):
        raise TypeError(f"{reference} is neither an APIRouter of FastAPI nor an ASGI application")
    return found


def routes_of(application: Any) -> Iterator[str]:
    """Return ``METHOD /path`` of each route, as far as the application lists them."""
    if hasattr(application, "openapi"):
        for path, methods in application.openapi()["paths"].items():
            yield from (f"{method.upper()} {PREFIX}{path}" for method in methods)
        return
    for route in getattr(application, "routes", ()):
        yield from (f"{method} {PREFIX}{route.path}" for method in sorted(getattr(route, "methods", None) or ()))


def main() -> None:
    """Serve until SIGTERM."""
    application: Any = None
    folder, reference, door, pipe = sys.argv[1:]
    speak_as_parent("api")
    leave_checkout()
    enter_project(folder)
    with os.fdopen(int(pipe), "w", encoding="utf-8") as report:
        try:
            application = load_application(reference)
            told: dict[str, Any] = {"routes": list(routes_of(application)), "files": _own_files(Path.cwd())}
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the project's code raises
            print_traceback(error)
            told = {"problem": f"{reference}: {type(error).__name__}: {error}"}
        report.write(json.dumps(told) + "\n")
    if "problem" in told:
        raise SystemExit(1)
    config = uvicorn.Config(
        application,
        loop="asyncio",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        root_path=PREFIX,
        forwarded_allow_ips="*",  # the only peer is the listener, which passes the client's address on
        timeout_graceful_shutdown=2,
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(door))])


def _own_files(folder: Path) -> list[str]:
    """Return the project's files that were imported."""
    inside = f"{folder}{os.sep}"
    files = {str(getattr(module, "__file__", None)) for module in list(sys.modules.values())}
    return sorted(file for file in files if file.startswith(inside) and "site-packages" not in file)


if __name__ == "__main__":
    main()
