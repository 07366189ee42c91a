"""``python -m services.prefect_server ...``: ``prefect server start ...``, fit for many callers at a time on SQLite.

See `services.sqlite_turns` for what would stop it otherwise. Python's garbage collector, whose passes over the server's
hundreds of thousands of lasting objects take a fourteenth of its time, comes more seldom. With PostgreSQL, start
Prefect's own command instead.
"""

from __future__ import annotations

import importlib
import runpy
import sys

from services.garbage import search_seldom
from services.sqlite_turns import install


def main() -> None:
    """Run ``prefect server start`` with this process's arguments, in this process."""
    install()
    importlib.import_module("prefect.server.api.server")
    search_seldom()
    sys.argv[1:1] = ["server", "start"]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
