"""A disk that fills up is told, and files are no longer taken, before it is full."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.files.conftest import QUICK, Watched
from tests.integration.files.mounts import mounted


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="mounts a file system of its own, as Linux does")
async def test_no_file_is_taken_while_the_disk_is_nearly_full_and_all_are_when_it_has_room(watched: Watched) -> None:
    watched.settings = QUICK.model_copy(update={"low_disk_percent": 50.0, "full_disk_percent": 20.0})
    with mounted("-t", "tmpfs", "-o", "size=4m", "tmpfs", watched.path):
        listener = await watched.listen(exclude=["ballast-*"])
        (watched.path / "first.csv").write_text("1")
        await watched.arrived(1)
        (disk,) = listener.status()["disks"]
        assert (disk["of"], disk["size"]) == ("the watch", 4 * 1024 * 1024)

        (watched.path / "ballast-low").write_bytes(b"x" * (5 * 512 * 1024))
        await watched.until(lambda: "disk-low" in listener.status().get("reasons", {}), "little room")
        (watched.path / "second.csv").write_text("2")
        await watched.arrived(2)

        (watched.path / "ballast-full").write_bytes(b"x" * (3 * 256 * 1024))
        await watched.until(lambda: "disk-full" in listener.status().get("reasons", {}), "hardly any room")
        assert f"the disk of {watched.path} has" in listener.status()["degraded"]
        (watched.path / "third.csv").write_text("3")
        assert [event["subject"] for event in await watched.exactly(2)] == ["first.csv", "second.csv"]

        (watched.path / "ballast-full").unlink()
        (watched.path / "ballast-low").unlink()
        await watched.arrived(3)
        await watched.until(lambda: "reasons" not in listener.status(), "room")
        await watched.stop()
