"""`make bench`: every benchmark, one after the other on an otherwise idle machine, into build/benchmarks.md.

docs/benchmarks.md is written by hand: it says what limits, and what was measured when.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
PAGE = CHECKOUT / "build" / "benchmarks.md"
ALL = sorted(file.stem for file in Path(__file__).parent.glob("[a-z]*.py"))

HEAD = """\
# Benchmarks

Measured on {date} on {machine}.
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(ALL)}; all by default")
    options = parser.parse_args()
    unknown = set(options.names) - set(ALL)
    if unknown:
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}: there are {', '.join(ALL)}")
    names = options.names or ALL
    sections = [HEAD.format(date=f"{datetime.now(UTC):%Y-%m-%d}", machine=_machine())]
    failed = []
    for name in names:
        print(f"== {name}", flush=True)
        answer = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}"], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, check=False
        )
        print(answer.stdout, flush=True)
        if answer.returncode:
            failed.append(name)
        sections.append(f"## {name}\n\n```\n{answer.stdout.strip()}\n```\n")
    if failed:
        print(f"failed: {', '.join(failed)}; {PAGE.relative_to(CHECKOUT)} is left as it was", file=sys.stderr)
        return 1
    if not options.names:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text("\n".join(sections), encoding="utf-8")
        print(f"written: {PAGE.relative_to(CHECKOUT)}")
    return 0


def _machine() -> str:
    return f"{os.cpu_count()} cores ({platform.machine()}), {platform.system()}, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(main())
