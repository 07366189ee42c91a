"""A program that says on standard output what kind of process it is, and waits for its end if it is to."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

if __name__ == "__main__":
    print(  # noqa: T201
        json.dumps(
            {
                "pid": os.getpid(),
                "parent": os.getppid(),
                "session": os.getsid(0),
                "arguments": sys.argv[1:],
                "folder": os.getcwd(),  # noqa: PTH109
                "environment": dict(os.environ),
                "path": sys.path[0],
                "imported": "prefect.client.orchestration" in sys.modules,
                "server": sys.modules["prefect"].settings.PREFECT_API_URL.value() if "prefect" in sys.modules else None,
                "descriptors": sorted(os.listdir("/proc/self/fd")),  # noqa: PTH208
                "handlers": [signal.getsignal(number) == signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGCHLD)],
            }
        ),
        flush=True,
    )
    if sys.argv[1:] == ["stay"]:
        time.sleep(600)  # it is ended from outside
    sys.exit(7)
