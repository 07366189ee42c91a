"""`make image-test`: build the image and run compose.yaml on a real engine, from Debian's and PyPI's packages alone.

Needs root on Debian, apt with a package list, and about 5 GB in the work folder (``IMAGE_TEST_WORK``, by default
build/image-test), which makes the next time quicker. Nothing is installed, and nothing outside of that folder stays.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tools.image_test.debian import Debian
from tools.image_test.engine import Engine, inside, wait_for_network

CHECKOUT = Path(__file__).resolve().parents[2]
NEEDED = ("apt-get", "dpkg-deb", "unshare", "mount", "pivot_root", "chroot", "perl")


def main() -> int:
    """Run the whole test; 0 when every step passed."""
    parser = argparse.ArgumentParser(prog="make image-test", description=__doc__)
    parser.add_argument("--work", type=Path, default=os.environ.get("IMAGE_TEST_WORK", CHECKOUT / "build/image-test"))
    parser.add_argument("--inside", type=int, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--only-build", action="store_true", help="build the image, print its size, and end")
    given = parser.parse_args()
    work = given.work.resolve()
    if given.inside is None:
        return outside(work, sys.argv[1:])
    wait_for_network(given.inside)
    folder = work / "checkout"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    engine = Engine(work, folder)
    copy_checkout(folder)
    with engine.running():
        from tools.image_test.story import Story

        story = Story(engine, folder)
        return story.build() if given.only_build else story.tell()


def outside(work: Path, arguments: list[str]) -> int:
    """Make what the engine is made of, and go on inside of new namespaces."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        lacking = f" that has {', '.join(missing)}" if missing else ""
        sys.stderr.write(f"error: the image test needs root on a Debian machine{lacking}\n")
        return 2
    work.mkdir(parents=True, exist_ok=True)
    Debian(work).make()
    return inside(work, arguments)


def copy_checkout(folder: Path) -> None:
    """Copy what is under version control, as it is now; a build needs nothing else."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(command, cwd=CHECKOUT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, files):
        source = CHECKOUT / name
        if source.is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name)


if __name__ == "__main__":
    sys.exit(main())
