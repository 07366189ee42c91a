"""Folders and files of others: what is taken, what stays, and what is said, with the rights of an ordinary user."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from services.store.connection import AsyncRedis
from tests.integration.files.conftest import QUICK, Watched
from tests.integration.files.listening import Listening
from tests.support.waiting import eventually

NOBODY = 65534

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of other users")


def access_list(path: Path, *, user: int, rights: int, mask: int = 7, default: bool = False) -> None:
    """What ``setfacl -m u:USER:RIGHTS`` sets, as the system stores it: the file's own mode and one more user."""
    mode = path.stat().st_mode
    entries = [
        (0x01, mode >> 6 & 7, -1),  # the owner
        (0x02, rights, user),
        (0x04, mode >> 3 & 7, -1),  # the group
        (0x10, mask, -1),
        (0x20, mode & 7, -1),  # others
    ]
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(path, f"system.posix_acl_{'default' if default else 'access'}", packed)
    except OSError as error:
        pytest.skip(f"no access lists here: {error.strerror}")


@pytest_asyncio.fixture
async def others(redis: AsyncRedis) -> AsyncIterator[Watched]:
    """A folder of root's that everybody may read, as an export with root squash is for root."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="sluice-others-") as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "inbox"
        path.mkdir(mode=0o755)
        yield Watched(path, redis)


def as_nobody(others: Watched, redis: AsyncRedis, url: str, log: Path) -> Listening:
    watches = {"inbox": {"path": str(others.path)}}
    return Listening(redis, url, watches, QUICK.model_dump(), log=log, user=NOBODY)


async def test_files_of_others_are_taken_and_stay_until_an_access_list_lets_them_be_moved(
    others: Watched, redis: AsyncRedis, valkey_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with as_nobody(others, redis, valkey_url, log) as one:
        await one.scanned()
        (others.path / "open.csv").write_text("x")
        (event,) = await others.arrived(1)
        await others.finish(event)

        async def told() -> bool:
            return "cannot be archived: Permission denied: the user that runs Sluice needs to write" in log.read_text()

        async def in_status() -> bool:
            return "needs to write to the folder" in (await one.status("archive")).get("degraded", "")

        await eventually(told, what="the reason in the log")
        await eventually(in_status, what="the reason in the status")
        assert (others.path / "open.csv").read_text() == "x"
        access_list(others.path, user=NOBODY, rights=7)
        await others.settled()
    archived = others.path / "done" / "open.csv"
    assert archived.read_text() == "x"
    assert archived.stat().st_uid == 0, "it was moved, not copied"


async def test_a_private_file_of_another_user_waits_and_is_taken_once_an_access_list_shows_it(
    others: Watched, redis: AsyncRedis, valkey_url: str, tmp_path: Path
) -> None:
    access_list(others.path, user=NOBODY, rights=7)
    access_list(others.path, user=NOBODY, rights=7, default=True)
    with as_nobody(others, redis, valkey_url, tmp_path / "log") as one:
        await one.scanned()
        (others.path / "shared.csv").write_text("x")  # it inherits the right of the folder
        await others.arrived(1)
        # A program that makes its files for itself alone takes the inherited right away by that.
        os.close(os.open(others.path / "private.csv", os.O_CREAT | os.O_WRONLY, 0o600))
        (others.path / "private.csv").write_text("y")

        async def waits() -> bool:
            return (await one.status())["waiting"]["for"] == {"unreadable": 1}

        await eventually(waits, what="the unreadable file in the status")
        assert len(await others.events()) == 1
        access_list(others.path / "private.csv", user=NOBODY, rights=4)
        await others.exactly(2)
