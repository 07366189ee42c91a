"""Determines the file system of a watch, and so whether the system can notify of all changes there."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_MOUNTS: Final = Path("/proc/self/mountinfo")
_REMOTE: Final = frozenset((
    "9p", "afs", "autofs", "beegfs", "ceph", "cifs", "coda", "davfs", "drvfs", "fakeowner", "gfs", "gfs2",
    "glusterfs", "gpfs", "grpcfuse", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "prl_fs",
    "prl_fs_frozen", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs", "wslfs"
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mount:
    """The mount that holds a path.

    ``remote``: other machines can write there without a notification here. ``bound``: a part of a file system is
    mounted here; where containers run in a virtual machine, the other part may belong to another system.
    """

    kind: str
    remote: bool
    bound: bool


def mount_of(path: bytes) -> Mount | None:
    """Return the mount that holds ``path``; None where the system does not list mounts."""
    try:
        table = _MOUNTS.read_bytes()
        resolved = os.path.realpath(path)
    except OSError:
        return None
    return find_mount(table, resolved)


def find_mount(table: bytes, path: bytes) -> Mount | None:
    """Return the last and deepest mount of a mountinfo ``table`` that holds ``path``."""
    best: tuple[int, Mount] | None = None
    for line in table.splitlines():
        fields, _, rest = line.partition(b" - ")
        words = fields.split(b" ")
        if len(words) < 5 or not rest:  # noqa: PLR2004 - see proc_pid_mountinfo(5)
            continue
        point = _unescape(words[4])
        if path != point and not path.startswith(point.rstrip(b"/") + b"/"):
            continue
        kind = rest.split(b" ", 1)[0].decode("ascii", "replace")
        # A file system in user space counts as remote; the one exception is a local disk.
        remote = kind in _REMOTE or (kind.split(".")[0] == "fuse")
        if best is None or len(point) >= best[0]:
            best = len(point), Mount(kind, remote, _unescape(words[3]) != b"/" and kind != "btrfs")
    return best[1] if best else None


def _unescape(field: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field)
