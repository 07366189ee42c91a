"""``python -m services.home.ready_file [alive]``: whether the role in this container is ready, or alive.

A role writes the file (`SLUICE_READY_FILE`) with each of its reports, every two seconds. So the answer is that of
`sluice status --role`, for the cost of starting Python: it imports nothing of Sluice's and asks no server. ``alive``
only checks that the role reports at all, as it does while it waits for Redis.
"""

import os
import sys
import time
from pathlib import Path

VALID_SECONDS = 10.0
"""As long as a report in Redis counts."""


def write(file: Path, problem: str | None) -> None:
    """Record that the role is ready, or why it is not."""
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    draft.write_text(problem or "", encoding="utf-8")
    draft.replace(file)


def problem_in(file: Path, *, alive: bool = False) -> str | None:
    """Return why the role is not ready, or not even ``alive``; None if it is."""
    try:
        age = time.time() - file.stat().st_mtime
        problem = file.read_text(encoding="utf-8")
    except OSError:
        return f"no role reports here: {file} is not there"
    if age > VALID_SECONDS:
        return f"the role has been silent for {age:.0f} s"
    return None if alive else problem or None


def main(words: list[str]) -> int:
    """Return 0 if the role is ready (or alive, if that is asked), 1 if not, 2 without a file to read."""
    if words not in ([], ["alive"]):
        print(f"error: {' '.join(words)!r} cannot be asked: nothing, or alive")  # noqa: T201 - for the engine
        return 2
    name = os.environ.get("SLUICE_READY_FILE")
    if not name:
        print("error: SLUICE_READY_FILE is not set: a role writes there whether it is ready")  # noqa: T201 - likewise
        return 2
    problem = problem_in(Path(name), alive=bool(words))
    print(problem or "yes")  # noqa: T201 - the engine keeps it
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
