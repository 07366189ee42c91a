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
from tools.image_test.engine import GROUP, Engine, inside, wait_for_network
from tools.image_test.story import Story

CHECKOUT = Path(__file__).resolve().parents[2]
NEEDED = ("apt-get", "dpkg-deb", "unshare", "mount", "pivot_root", "chroot", "perl")


def main() -> int:
    """Run the whole test; 0 when every step passed."""
    parser = argparse.ArgumentParser(prog="make image-test", description=__doc__)
    parser.add_argument("--work", type=Path, default=os.environ.get("IMAGE_TEST_WORK", CHECKOUT / "build/image-test"))
    parser.add_argument("--inside", type=int, default=None, help=argparse.SUPPRESS)
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
        return Story(engine, folder).tell()


def outside(work: Path, arguments: list[str]) -> int:
    """Make what the engine is made of, and go on inside of new namespaces."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        lacking = f" that has {', '.join(missing)}" if missing else ""
        sys.stderr.write(f"error: the image test needs root on a Debian machine{lacking}\n")
        return 2
    work.mkdir(parents=True, exist_ok=True)
    Debian(work).make()
    before = traces(work)
    code = inside(work, arguments)
    left = traces(work) - before
    if left:
        print(f"image test: FAILED: left behind: {', '.join(sorted(left))}")
    return code or bool(left)


def traces(work: Path) -> set[str]:
    """What an engine could leave on this machine: mounts, network interfaces, routing, control groups."""
    mounts = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()}
    links = {path.name for path in Path("/sys/class/net").iterdir() if path.name.startswith(("docker", "br-", "tap"))}
    forwarding = Path("/proc/sys/net/ipv4/ip_forward").read_text(encoding="utf-8").strip()
    groups = map(str, Path("/sys/fs/cgroup").glob(f"**/{GROUP}"))
    return {one for one in mounts if one.startswith(str(work))} | links | {f"ip_forward={forwarding}", *groups}


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
