"""The import probe: imports a flow file in a process of its own to learn whether it imports and what it needs.

The fork server must not import the users' files: whatever they start on import would be shared by every run. So a probe
imports them in a fork, and the fork server then imports only the libraries that they use.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

from services.common.project_imports import enter_project, leave_checkout
from services.executor.messages import FlowSource, ImportFindings, ThreadStarters
from services.executor.process.flow_loading import describe_failure, import_flow
from services.executor.process.process_setup import pose_as_engine


def probe(source: FlowSource, *, shelf: Path) -> ImportFindings:
    """Import the source in this process, which must end afterwards."""
    leave_checkout(shelf)
    pose_as_engine()
    before = set(sys.modules)
    problem = None
    began = time.monotonic()
    try:
        enter_project(source.path)
        sys.path.insert(0, ".")
        import_flow(source.entrypoint)
    except BaseException as error:  # noqa: BLE001 - `sys.exit` at import is the file's problem too
        problem = describe_failure(error)
    seconds = time.monotonic() - began
    new = [(name, module) for name, module in list(sys.modules.items()) if name not in before]
    files = {file for _, module in new if (file := _file(module)) and not _is_installed(file)}
    libraries = tuple(name for name, module in new if (file := _file(module)) and _is_installed(file))
    return ImportFindings(source, problem, tuple(sorted(files | {source.file})), libraries, seconds)


def import_libraries(names: Iterable[str]) -> None:
    """Import the libraries; one that cannot be imported is skipped, and the flows that need it fail on it."""
    for name in names:
        if name not in sys.modules:
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def thread_starters(names: Sequence[str]) -> ThreadStarters:
    """Return the packages among ``names`` whose import starts a thread.

    Imports them in this process, which must end afterwards.
    """
    poisonous: list[str] = []
    for name in names:
        top = name.partition(".")[0]
        if top in poisonous:
            continue
        before = _thread_count()
        import_libraries([name])
        if _thread_count() > before:
            poisonous.append(top)
    return ThreadStarters(tuple(poisonous))


def _thread_count() -> int:
    try:
        return len(list(Path("/proc/self/task").iterdir()))
    except OSError:
        return threading.active_count()


def _file(module: ModuleType) -> str | None:
    file = getattr(module, "__file__", None)
    return os.path.realpath(file) if isinstance(file, str) else None


def _is_installed(file: str) -> bool:
    return "site-packages" in Path(file).parts or any(Path(file).is_relative_to(folder) for folder in _INSTALLED)


_INSTALLED = (Path(os.__file__).resolve().parent, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve())
