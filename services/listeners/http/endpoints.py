"""A project's own HTTP routes: runs the process that serves them, and forwards requests to it.

They have a process of their own, so that their code can neither block nor end the listener of events, and can import
the project's packages whatever their names.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import structlog
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from config.project import Project, project_root
from config.settings import Settings
from services.common.backoff import Backoff
from services.common.process_tree import end_with_parent
from services.common.project_imports import CHECKOUT
from services.listeners.http.endpoint_process import PREFIX
from services.listeners.http.problem import ProblemDetails

log = structlog.get_logger()

METHODS: Final = "GET POST PUT PATCH DELETE OPTIONS"
_LOOK_SECONDS: Final = 1.0
"""How often the process and the project's files are checked."""
_START_SECONDS: Final = 60.0
"""How long the project's code may take to be imported."""
_STOP_SECONDS: Final = 3.0
_OF_ONE_CONNECTION: Final = frozenset(
    (b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"proxy-connection")
)
_OURS: Final = _OF_ONE_CONNECTION | {b"authorization", b"content-length", b"x-forwarded-for", b"x-forwarded-proto"}
"""Headers that are not forwarded to the project's code: the token is Sluice's, and the others are set again."""


class EndpointsEnded(Exception):
    """The process has ended or did not start; the message says why."""


@dataclass(eq=False)
class Endpoints:
    """The routes ``module:name`` of the project in ``folder``; ``environment`` is for its code."""

    reference: str
    _: KW_ONLY
    folder: Path
    environment: Mapping[str, str]
    answer_seconds: float

    def __post_init__(self) -> None:
        self._backoff = Backoff("serve the project's endpoints", first_seconds=1, longest_seconds=15)
        self._client: httpx.AsyncClient | None = None
        self._routes: Sequence[str] = ()

    def status(self) -> Mapping[str, Any]:
        """Return the routes; the role is ready without them, because events do not need them."""
        return self._backoff.status(endpoints=list(self._routes))

    async def run(self) -> None:
        """Serve until cancelled; the process is started again when it ends, and when a file of its code changes."""
        with _door() as (door, path):
            each_its_own = httpx.Limits(max_connections=None, max_keepalive_connections=0)
            transport = httpx.AsyncHTTPTransport(uds=path, limits=each_its_own)
            async with httpx.AsyncClient(transport=transport, timeout=self.answer_seconds) as self._client:
                while True:
                    try:
                        await self._serve(door)
                    except EndpointsEnded as error:
                        await self._backoff.after(error)

    async def answer(self, request: Request, body: bytes) -> Response:
        """Return the response of the project's code. Raises `ProblemDetails` if there is none."""
        if self._client is None or self._backoff.trouble:
            raise _away(self._backoff.trouble or "the project's endpoints are not there yet")
        raw_path: bytes = request.scope["raw_path"].removeprefix(PREFIX.encode())
        query: bytes = request.scope["query_string"]
        url = httpx.URL("http://endpoints").copy_with(raw_path=raw_path + b"?" + query if query else raw_path)
        headers = [header for header in request.headers.raw if header[0] not in _OURS]
        if request.client is not None:
            headers.append((b"x-forwarded-for", request.client.host.encode()))
        try:
            answer = await self._client.send(
                httpx.Request(request.method, url, headers=headers, content=body), stream=True
            )
        except httpx.ReadTimeout as error:
            said = f"the project's code has not answered within {self.answer_seconds:g} s"
            fix = "answer sooner and leave the work to a flow, or raise SLUICE_API__ENDPOINT_TIMEOUT_SECONDS"
            raise ProblemDetails(504, "endpoint-too-slow", said, fix) from error
        except httpx.HTTPError as error:
            raise _away(f"the project's endpoints ended during the request ({type(error).__name__})") from error
        response = StreamingResponse(answer.aiter_raw(), answer.status_code, background=BackgroundTask(answer.aclose))
        response.raw_headers = [header for header in answer.headers.raw if header[0].lower() not in _OF_ONE_CONNECTION]
        return response

    async def _serve(self, door: socket.socket) -> None:
        """Run one process until its code has changed; raises `EndpointsEnded` when it ends by itself."""
        read, write = os.pipe()
        arguments = (str(self.folder), self.reference, str(door.fileno()), str(write))
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.listeners.http.endpoint_process", *arguments,
                cwd=CHECKOUT, env={**os.environ, **self.environment}, pass_fds=(door.fileno(), write),
                stdin=asyncio.subprocess.DEVNULL, preexec_fn=end_with_parent,
            )  # fmt: skip
        except OSError as error:
            os.close(read)
            raise EndpointsEnded(f"their process cannot be started: {error}") from error
        finally:
            os.close(write)
        try:
            told = await _told(read)
            if "routes" not in told:
                raise EndpointsEnded(str(told.get("problem", "their process ended, or took too long, before it began")))
            self._routes = told["routes"]
            self._backoff.worked()
            log.info("the project's endpoints are served", endpoints=list(self._routes))
            files = _marks(told["files"])
            while files == _marks(files):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), _LOOK_SECONDS)
                if process.returncode is not None:
                    raise EndpointsEnded(f"their process ended with the exit code {process.returncode}")
            log.info("the code of the project's endpoints has changed, starting them again")
        finally:
            self._routes = ()
            await _end(process)


def endpoints_of(project: Project, settings: Settings, environment: Mapping[str, str | None]) -> Endpoints | None:
    """Return the routes that the project names, None if it names none; ``environment`` is for its code."""
    if project.endpoints is None:
        return None
    return Endpoints(
        project.endpoints,
        folder=project_root(settings.config),
        environment={name: value for name, value in environment.items() if value is not None},
        answer_seconds=settings.api.endpoint_timeout_seconds,
    )


def _away(why: str) -> ProblemDetails:
    return ProblemDetails(
        503, "endpoints-away", why, "mend the project's code (`sluice check` says what is wrong)", retry_after_seconds=2
    )


@contextlib.contextmanager
def _door() -> Iterator[tuple[socket.socket, str]]:
    """Yield a Unix socket that only this user can open; successive processes serve it, and requests wait in it."""
    folder = tempfile.mkdtemp(prefix="sluice-endpoints-")  # short: the path of a socket has at most 100 characters
    path = f"{folder}/door"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
            door.bind(path)
            door.listen(1024)
            yield door, path
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _told(read: int) -> Mapping[str, Any]:
    """Return the line that the process reports; empty if none comes in time."""
    reader = asyncio.StreamReader(limit=1 << 20)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb", buffering=0)
    )
    try:
        found = json.loads(await asyncio.wait_for(reader.readline(), _START_SECONDS))
    except (TimeoutError, ValueError):
        return {}
    finally:
        transport.close()
    return found if isinstance(found, dict) else {}


def _marks(files: Iterable[str]) -> dict[str, tuple[int, int] | None]:
    """Return for each file a value that changes with its content."""
    marks: dict[str, tuple[int, int] | None] = {}
    for file in files:
        try:
            found = os.stat(file)  # noqa: PTH116 - a glance at many files each second
        except OSError:
            marks[file] = None
        else:
            marks[file] = (found.st_mtime_ns, found.st_size)
    return marks


async def _end(process: asyncio.subprocess.Process) -> None:
    for end in (process.terminate, process.kill):
        with contextlib.suppress(ProcessLookupError):
            end()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _STOP_SECONDS)
            return
