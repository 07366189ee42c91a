"""The import path for a user's code: the project's own packages, and of Sluice's only `sluice`."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from importlib.machinery import SourceFileLoader
from importlib.util import source_from_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from services import LIBRARIES

CHECKOUT: Final = str(Path(__file__).resolve().parents[2])
_OWN: Final = frozenset({"benchmarks", "config", "events", "flows", "services", "tasks", "tests"})
"""Top-level packages of Sluice that a user's project may have too; `sluice`, which flows import, stays."""

_SETTLED_SECONDS: Final = 2.0
"""Age of a source file from which its compiled form is written: a compiled file names the whole second and the size of
its source, so that of a file that is saved twice within a second, at the same size, would count for the second one."""

_write_compiled: Final = SourceFileLoader.set_data


def leave_checkout(shelf: Path | None = None) -> None:
    """Remove Sluice's modules and its import path, so that a user's project may have the same names.

    Running code must import everything it needs before. ``import sluice`` still works, here and, with ``shelf``, in
    Python processes that the flow starts: a link to the package is made in that folder.
    """
    import sluice

    package = Path(sluice.__file__ or "").resolve().parent
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in _OWN and _lies_in_checkout(module):
            del sys.modules[name]
    sys.path[:] = [entry for entry in sys.path if entry and os.path.realpath(entry) != CHECKOUT]
    elsewhere = {CHECKOUT, *os.environ.get(LIBRARIES, "").split(os.pathsep)}
    if shelf is not None and str(package.parent) in elsewhere and _put_on(shelf, package):
        sys.path.append(str(shelf))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(shelf)]))


def enter_project(folder: str | Path) -> None:
    """Change to the folder and put it on the import path, before its ``src``, if it has one. Raises `OSError`.

    From then on, a file that was saved just now is imported without writing its compiled form.
    """
    SourceFileLoader.set_data = _write_settled  # type: ignore[assignment]
    os.chdir(folder)
    here = Path.cwd()
    source = here / "src"
    sys.path[:0] = [str(here), *([str(source)] if source.is_dir() else [])]


def _write_settled(loader: SourceFileLoader, path: str, data: Any, **options: Any) -> None:
    """Write the compiled form of a source at ``path``, unless the source was saved within `_SETTLED_SECONDS`."""
    with suppress(OSError, ValueError):
        if time.time() - Path(source_from_cache(path)).stat().st_mtime < _SETTLED_SECONDS:
            return
    _write_compiled(loader, path, data, **options)


def _lies_in_checkout(module: ModuleType) -> bool:
    origin = getattr(module, "__file__", None)
    return origin is None or os.path.realpath(origin).startswith(CHECKOUT + os.sep)


def _put_on(shelf: Path, package: Path) -> bool:
    """Put a link to the package on the shelf; return whether one is there. Several processes may do so at once."""
    try:
        shelf.mkdir(parents=True, exist_ok=True)
        (shelf / package.name).symlink_to(package, target_is_directory=True)
    except FileExistsError:
        pass
    except OSError:
        return False
    return True
