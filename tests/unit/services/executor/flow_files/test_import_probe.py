"""What importing libraries does to the process that imports them, as the fork server has to know it before."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from services.executor.flow_files.import_probe import _file, _is_installed, import_libraries, thread_starters

Write = Callable[[str, str], str]
STARTS_A_THREAD = """
import threading
over = threading.Event()
thread = threading.Thread(target=over.wait, daemon=True)
thread.start()
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Makes modules that can be imported; their threads end with the test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    names: list[str] = []

    def write(name: str, text: str) -> str:
        path = tmp_path / Path(*f"probed_{name}".split("."))
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent != tmp_path:
            (path.parent / "__init__.py").touch()
        path.with_suffix(".py").write_text(text)
        names.append(f"probed_{name}")
        return names[-1]

    yield write
    for name in [name for name in sys.modules if name.startswith("probed_")]:
        module = sys.modules.pop(name)
        if hasattr(module, "over"):
            module.over.set()
            module.thread.join()


def test_packages_that_start_a_thread_are_told_once(library: Write) -> None:
    quiet = library("quiet", "x = 1")
    names = [quiet, library("noisy.one", STARTS_A_THREAD), library("noisy.two", STARTS_A_THREAD)]
    found = thread_starters([*names, "no_such_library_at_all"])
    assert found.packages == ("probed_noisy",)
    assert quiet in sys.modules
    assert "probed_noisy.two" not in sys.modules, "the package is known by then"


def test_a_library_that_cannot_be_imported_is_skipped(library: Write) -> None:
    names = [library("broken", "raise ValueError"), library("well", "x = 1")]
    import_libraries(["no_such_library_at_all", *names])
    assert names[1] in sys.modules
    assert names[0] not in sys.modules


def test_what_is_imported_already_is_not_imported_again(library: Write) -> None:
    name = library("again", "raise AssertionError('imported')")
    sys.modules[name] = ModuleType(name)
    import_libraries([name])


def test_files_of_the_project_are_told_from_installed_ones(tmp_path: Path) -> None:
    assert _is_installed(pytest.__file__)
    assert _is_installed(str(_file(sys.modules["asyncio"])))
    assert not _is_installed(str(tmp_path / "flow.py"))
    assert _file(sys) is None
