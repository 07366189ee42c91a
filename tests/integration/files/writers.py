"""Writers in other processes: what the kernel says of open files differs between processes."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from types import TracebackType
from typing import Self

_LOOP = """
import sys, os, traceback
names = {"os": os}
for line in sys.stdin:
    try:
        exec(compile(eval(line), "<writer>", "exec"), names)
        print("ok", flush=True)
    except BaseException:
        print(repr(traceback.format_exc()), flush=True)
"""


class Writer:
    """A Python process that does what it is told, one piece of code after the other; its names live on."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LOOP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self, code: str, **names: object) -> None:
        """Let it run ``code`` with ``names``; returns at once."""
        assert self._process.stdin is not None
        given = "".join(f"{name} = {value!r}\n" for name, value in names.items())
        self._process.stdin.write(repr(given + textwrap.dedent(code)) + "\n")
        self._process.stdin.flush()

    def wait(self) -> None:
        """Return when it has done what it was told last; fails with its traceback."""
        assert self._process.stdout is not None
        answer = self._process.stdout.readline().strip()
        assert answer == "ok", eval(answer) if answer else "the writer is gone"

    def do(self, code: str, **names: object) -> None:
        """Let it run ``code`` to its end."""
        self.start(code, **names)
        self.wait()
