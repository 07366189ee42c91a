"""Sets up a run process as Prefect's own runner would."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import sys
from collections.abc import Mapping, MutableMapping
from types import ModuleType


def pose_as_engine() -> None:
    """Give the process the main module and the arguments of ``python -m prefect.engine``.

    A flow may read them, and `multiprocessing` imports the main module again in the processes that it spawns.
    """
    spec = importlib.util.find_spec("prefect.engine")
    main = ModuleType("__main__")
    main.__spec__ = spec
    sys.modules["__main__"] = main
    if spec is not None and spec.origin is not None:
        sys.argv[:] = [spec.origin]


def fresh_random_state() -> None:
    """Reseed the random generators, which a fork shares with its parent."""
    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def default_signals() -> None:
    """Restore the default handlers of signals, which a fork inherits changed."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGALRM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def replace_environment(environment: Mapping[str, str]) -> None:
    """Make ``environment`` the whole environment of this process."""
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)


def quiet_arrow(environ: MutableMapping[str, str]) -> None:
    """Have pyarrow start no thread when it is imported, so that it can be imported before a fork."""
    environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
