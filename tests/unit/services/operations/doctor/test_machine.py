"""What `sluice doctor` finds on this machine."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from services.operations.doctor import machine
from services.operations.doctor.finding import Finding, Grade

GIB = 1024**3


def one(found: Iterator[Finding]) -> Finding:
    (finding,) = found
    return finding


def test_a_home_that_others_can_enter_fails_and_says_how_to_close_it(tmp_path: Path) -> None:
    home, project = tmp_path / "home", tmp_path / "sluice.yaml"
    home.mkdir(mode=0o755)
    project.touch()
    project.chmod(0o666)
    missing = str(tmp_path / "inbox")
    found = list(machine.check_permissions(home=home, project=project, folders=[missing]))
    assert [(one.grade, one.fix) for one in found] == [
        (Grade.FAIL, f"chmod 700 {home}"),
        (Grade.WARN, f"chmod o-w {project}"),
        (Grade.WARN, f"mkdir -p {missing}"),
    ]
    home.chmod(0o700)
    project.chmod(0o644)
    assert one(machine.check_permissions(home=home, project=project, folders=[])).grade is Grade.OK


def test_few_open_files_are_a_warning() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
    try:
        found = one(machine.check_open_files())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert (found.grade, "1024" in found.found) == (Grade.WARN, True)


@pytest.mark.parametrize(
    ("limit", "instances", "grade"),
    [(8192, 128, Grade.OK), (4, 128, Grade.WARN), (3, 128, Grade.FAIL), (8192, 16, Grade.WARN)],
)
def test_folders_are_counted_against_what_the_kernel_lets_be_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, instances: int, grade: Grade
) -> None:
    for name in ("in/a", "in/b/c", "kernel"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "kernel" / "max_user_watches").write_text(f"{limit}\n")
    (tmp_path / "kernel" / "max_user_instances").write_text(f"{instances}\n")
    monkeypatch.setattr(machine, "_INOTIFY", tmp_path / "kernel")
    found = one(machine.check_inotify([str(tmp_path / "in")]))
    assert found.grade is grade
    assert grade is Grade.OK or "sysctl" in found.fix


@pytest.mark.parametrize(("free", "grade"), [(0.1, Grade.FAIL), (1.0, Grade.WARN), (50.0, Grade.OK)])
def test_a_disk_without_room_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, grade: Grade
) -> None:
    disk = os.statvfs(tmp_path)
    values = list(disk)
    values[1], values[4], values[5], values[8] = 4096, int(free * GIB) // 4096, 1000, 1000
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result([*values[:8], 0, 255]))
    found = list(machine.check_disks([tmp_path, tmp_path / "not" / "there"]))
    assert [one.grade for one in found] == [grade]


def test_a_slot_that_outlived_its_executor_is_an_orphan(checkout: Path) -> None:
    code = (
        "import os, time\n"
        "from services.common.process_tree import show_as\n"
        "if os.fork(): os._exit(0)\n"
        "os.setsid(); show_as('slot 77: run 0f5c81ab'); print(os.getpid(), flush=True); time.sleep(600)"
    )
    starter = subprocess.Popen([sys.executable, "-c", code], cwd=checkout, stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    try:
        starter.wait(30)
        if psutil.Process(pid).ppid() != 1:
            pytest.skip("another process than the first takes orphans here")
        found = one(machine.check_orphans())
        assert (found.grade, f"{pid} (slot 77: run 0f5c81ab)" in found.found) == (Grade.WARN, True)
        assert str(pid) in found.fix.split()
    finally:
        os.kill(pid, signal.SIGKILL)
        starter.stdout.close()
