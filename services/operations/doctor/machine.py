"""Checks of this machine: versions, limits, disks and processes. None of them needs a server."""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import psutil

from services.common.prefect_versions import untested_versions
from services.operations.doctor.finding import Finding, fail, ok, warn

_FILES: Final = 4096
"""Number of open files that a role may need: a thousand HTTP connections, as many to servers, and flows' files.
"""

_INSTANCES: Final = 64
"""Number of inotify instances that a user needs: one for each watched folder, and those of editors and services."""

_MOST_FOLDERS: Final = 200_000
_INOTIFY: Final = Path("/proc/sys/fs/inotify")
_GIB: Final = 1024**3
_FULL, _NEARLY_FULL = _GIB // 5, 2 * _GIB
_FEW_INODES: Final = 0.05
_BELOW_OTHERS: Final = ("slot", "run", "fork", "import", "process", "finalizer", "observer", "start")
"""Prefixes of the titles of processes that must end with their parents."""


def check_versions(version: str) -> Iterator[Finding]:
    """``version`` is Sluice's own."""
    python = platform.python_version()
    if (3, 11) <= sys.version_info[:2] < (3, 14):
        yield ok("versions", f"Sluice {version}, Python {python}, {platform.system()} {platform.release()}")
    else:
        yield fail("versions", f"Sluice {version} with Python {python}", "install Python 3.11, 3.12 or 3.13")
    for sentence in untested_versions(None):
        found, _, fix = sentence.partition(": ")
        yield warn("versions", found, fix)


def check_open_files() -> Iterator[Finding]:
    """How many files a process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= _FILES:
        yield ok("open files", "without limit" if soft == resource.RLIM_INFINITY else f"up to {soft} for each process")
    else:
        fix = f"ulimit -n {_FILES}" if hard == resource.RLIM_INFINITY or hard >= _FILES else "LimitNOFILE=65536"
        yield warn("open files", f"a process may have {soft} open; {_FILES} are wanted", f"{fix} before `sluice up`")


def check_inotify(folders: Sequence[str]) -> Iterator[Finding]:
    """Whether the kernel lets every folder below the watched ones be watched (Linux only)."""
    if not _INOTIFY.is_dir():
        return
    watches = int((_INOTIFY / "max_user_watches").read_text("ascii"))
    instances = int((_INOTIFY / "max_user_instances").read_text("ascii"))
    needed = _folders_below(folders)
    said = f"{needed} folders to watch; a user may watch {watches}"
    if needed > watches * 0.8:
        more = max(524_288, 2 * needed)
        check = fail if needed > watches else warn
        yield check("inotify", said, f"sysctl -w fs.inotify.max_user_watches={more}, and the same in /etc/sysctl.d")
    elif instances < _INSTANCES:
        fix = "sysctl -w fs.inotify.max_user_instances=512, and the same in /etc/sysctl.d"
        yield warn("inotify", f"a user may have {instances} watchers; {_INSTANCES} are wanted", fix)
    else:
        yield ok("inotify", said)


def check_disks(folders: Sequence[Path]) -> Iterator[Finding]:
    """The room on the disks that hold these folders, each disk once."""
    seen = set()
    for folder in folders:
        place = next((one for one in (folder, *folder.parents) if one.exists()), Path("/"))
        device = place.stat().st_dev
        if device in seen:
            continue
        seen.add(device)
        disk = os.statvfs(place)
        free = disk.f_bavail * disk.f_frsize
        said = f"{free / _GIB:.1f} GiB free at {place}"
        few = disk.f_files and disk.f_favail < disk.f_files * _FEW_INODES
        fix = "make room, or move it to a larger disk: SLUICE_HOME for the state, `path` for a watched folder"
        if free < _FULL:
            yield fail("disk", said, fix)
        elif few:
            yield warn("disk", f"{disk.f_favail} files can still be made at {place}", "delete what is not needed there")
        else:
            yield warn("disk", said, fix) if free < _NEARLY_FULL else ok("disk", said)


def check_permissions(*, home: Path, project: Path, folders: Sequence[str]) -> Iterator[Finding]:
    """Who may read and write the home, the project file and the watched folders."""
    problems = list(_permission_problems(home, project, folders))
    yield from problems
    if not problems:
        yield ok("permissions", f"the home {home} is private, and {len(folders)} watched folders can be written")


def check_orphans() -> Iterator[Finding]:
    """Find processes of executors and their runs that outlived their parents."""
    orphans = []
    for process in psutil.process_iter(["pid", "ppid", "cmdline"]):
        words = process.info["cmdline"] or [""]
        kind = words[0].removeprefix("sluice: ")
        if process.info["ppid"] == 1 and kind != words[0] and kind.startswith(_BELOW_OTHERS):
            orphans.append((process.info["pid"], kind.strip()))
    if orphans:
        names = ", ".join(f"{pid} ({kind})" for pid, kind in orphans)
        pids = " ".join(str(pid) for pid, _ in orphans)
        yield warn("orphans", f"processes without the one that started them: {names}", f"kill {pids}")
    else:
        yield ok("orphans", "no process outlived the one that started it")


def _permission_problems(home: Path, project: Path, folders: Sequence[str]) -> Iterator[Finding]:
    """Yield what is wrong with the rights on the home, the project file and the watched folders."""
    if home.exists():
        found = home.stat()
        if found.st_uid != os.geteuid():
            yield fail(
                "permissions", f"the home {home} belongs to another user", "run as its owner, or set SLUICE_HOME"
            )
        elif found.st_mode & 0o077:
            yield fail("permissions", f"others can enter the home {home}, with its passwords", f"chmod 700 {home}")
        elif not os.access(home, os.W_OK):
            yield fail("permissions", f"the home {home} cannot be written", "mount it writable, or set SLUICE_HOME")
    if project.exists() and project.stat().st_mode & 0o002:
        yield warn("permissions", f"everybody can write {project}, which decides what runs", f"chmod o-w {project}")
    for folder in folders:
        if not Path(folder).is_dir():
            yield warn("permissions", f"the watched folder {folder} is not there", f"mkdir -p {folder}")
        elif not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            fix = "give the user of the role `listeners` rwx on it: files are moved to done/ and failed/ there"
            yield fail("permissions", f"the watched folder {folder} cannot be read and written", fix)


def _folders_below(folders: Sequence[str]) -> int:
    count = 0
    for folder in folders:
        for _ in os.walk(folder):
            count += 1
            if count >= _MOST_FOLDERS:
                return count
    return count
