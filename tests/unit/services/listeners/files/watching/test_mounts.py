"""What kind of file system a path lies on, read from the table of mounts."""

from __future__ import annotations

import pytest

from services.listeners.files.watching.mounts import Mount, find_mount

TABLE = rb"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /mnt/share rw - nfs4 server:/export rw
31 22 0:41 / /mnt/with\040space rw - cifs //server/x rw
32 22 254:0 /srv/data /data rw master:1 - ext4 /dev/vda rw
33 22 0:42 / /mnt/ssh rw - fuse.sshfs me@there: rw
34 22 8:1 / /mnt/stick rw - fuseblk /dev/sda1 rw
35 22 0:43 /@home /home rw - btrfs /dev/vdb rw
36 30 254:1 / /mnt/share/local rw - xfs /dev/vdc rw
37 22 0:44 / /over rw - tmpfs tmpfs rw
38 22 0:45 / /over rw - 9p share rw
"""


@pytest.mark.parametrize(
    ("path", "mount"),
    [
        ("/srv/inbox", Mount("ext4", remote=False, bound=False)),
        ("/mnt/share", Mount("nfs4", remote=True, bound=False)),
        ("/mnt/share/in", Mount("nfs4", remote=True, bound=False)),
        ("/mnt/shared", Mount("ext4", remote=False, bound=False)),
        ("/mnt/share/local/in", Mount("xfs", remote=False, bound=False)),
        ("/mnt/with space/in", Mount("cifs", remote=True, bound=False)),
        ("/data/in", Mount("ext4", remote=False, bound=True)),
        ("/mnt/ssh/in", Mount("fuse.sshfs", remote=True, bound=False)),
        ("/mnt/stick/in", Mount("fuseblk", remote=False, bound=False)),
        ("/home/in", Mount("btrfs", remote=False, bound=False)),
        ("/over/in", Mount("9p", remote=True, bound=False)),
    ],
)
def test_the_deepest_and_latest_mount_counts(path: str, mount: Mount) -> None:
    assert find_mount(TABLE, path.encode()) == mount


def test_a_table_that_is_not_understood_tells_nothing() -> None:
    assert find_mount(b"garbage\n\n1 2 3\n", b"/x") is None
