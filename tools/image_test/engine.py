"""A container engine of its own, in namespaces of its own: what it makes of mounts and networks ends with it.

The machine's addresses, its packet filter, `ip_forward` and any other engine on it are not touched. `inside` starts
this program once more, as the first process of new namespaces (mounts, network, processes), with a way out to the
package indexes through slirp4netns; there `Engine` runs dockerd and containerd on the root that `debian` has made.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tools.image_test.debian import IMAGES, run

NAMESERVER: Final = "10.0.2.3"
"""slirp4netns' own, which asks those of this machine."""
NEW_NAMESPACES: Final = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
GROUP: Final = "sluice-image-test"
"""The control group of all containers; it lies outside of the namespaces."""
WEIGHTS: Final = {"cpu/{}/cpu.shares": 10_240, "{}/cpu.weight": 1_000}
"""By version of control groups. A group weighs as much as one process unless it is told: on a busy machine the forty
processes of the stack would have the time of one."""
PIVOT: Final = 'cd "$0" && pivot_root . mnt && cd / && umount -l /mnt && exec /usr/sbin/dockerd "$@"'
"""dockerd with its root as that of its mount namespace: in one that it was only put into by chroot, containers' own
roots are not those of their namespaces, and what is executed in a container finds itself outside."""
READY_SECONDS: Final = 60.0


def inside(work: Path, arguments: list[str]) -> int:
    """Run this program with ``arguments`` in new namespaces; return its exit code when everything in them has ended."""
    ready, told = os.pipe()
    child = subprocess.Popen(
        [*NEW_NAMESPACES, sys.executable, "-m", "tools.image_test", "--inside", str(ready), *arguments],
        pass_fds=[ready],
    )
    os.close(ready)
    own, its = Path("/proc/self/ns/net"), Path(f"/proc/{child.pid}/ns/net")
    while child.poll() is None and its.readlink() == own.readlink():
        time.sleep(0.01)
    root = work / "root"
    loader = next(root.glob("lib64/ld-linux-*"), None) or next(root.glob("lib/ld-linux-*"))
    libraries = next(root.glob("usr/lib/*-linux-gnu"))
    with (work / "slirp4netns.log").open("w", encoding="utf-8") as log:
        slirp = subprocess.Popen(
            [
                *(str(loader), "--library-path", str(libraries), str(root / "usr/bin/slirp4netns")),
                *("--configure", "--mtu=65520", "--disable-host-loopback", f"--ready-fd={told}"),
                *(str(child.pid), "tap0"),
            ],
            pass_fds=[told],
            stdout=log,
            stderr=log,
        )
    os.close(told)
    try:
        return child.wait()
    except KeyboardInterrupt:
        child.terminate()
        return 130
    finally:
        child.kill()
        slirp.terminate()
        slirp.wait()
        for group in Path("/sys/fs/cgroup").glob(f"**/{GROUP}"):
            _remove_group(group)


def wait_for_network(ready: int) -> None:
    """Return when slirp4netns has set up the network of these namespaces."""
    if not os.read(ready, 1):
        raise SystemExit("slirp4netns did not set up a network; see slirp4netns.log in the work folder")


class Engine:
    """dockerd, and the commands of its client."""

    def __init__(self, work: Path, folder: Path) -> None:
        """``folder``: the copy of the repository that compose works in."""
        self._work = work
        self._root = work / "root"
        self._folder = folder
        self._log = work / "dockerd.log"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run dockerd, and stop it in the end."""
        self._mount()
        _weigh_group()
        options = ["--storage-driver=overlay2", "--exec-opt=native.cgroupdriver=cgroupfs", f"--dns={NAMESERVER}"]
        command = ["unshare", "--mount", "sh", "-c", PIVOT, str(self._root), *options, f"--cgroup-parent=/{GROUP}"]
        with self._log.open("w", encoding="utf-8") as log:
            daemon = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + READY_SECONDS
            while self.docker("info", check=False).returncode:
                if daemon.poll() is not None or time.monotonic() > deadline:
                    tail = "\n".join(self._log.read_text(encoding="utf-8").splitlines()[-10:])
                    raise SystemExit(f"dockerd does not start; {self._log} ends with\n{tail}")
                time.sleep(0.2)
            self._import_images()
            yield
        finally:
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(60)
            except subprocess.TimeoutExpired:
                daemon.kill()

    def docker(self, *arguments: str, check: bool = True, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        """Run ``docker`` in the folder; its output is text. Ends the test when it fails, unless ``check`` is false."""
        script = 'cd /checkout && exec docker "$@"'
        done = subprocess.run(
            ["chroot", str(self._root), "sh", "-c", script, "docker", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        if check and done.returncode:
            tail = "\n".join(f"{done.stdout}\n{done.stderr}".strip().splitlines()[-25:])
            raise SystemExit(f"docker {' '.join(arguments)} failed with {done.returncode}:\n{tail}")
        return done

    def compose(self, *arguments: str, check: bool = True, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        """Run ``docker compose``."""
        return self.docker("compose", *arguments, check=check, timeout=timeout)

    def inspect(self, *names: str) -> list[dict[str, Any]]:
        """What the engine knows of containers or images."""
        found: list[dict[str, Any]] = json.loads(self.docker("inspect", *names).stdout) if names else []
        return found

    def containers(self, service: str | None = None) -> list[dict[str, Any]]:
        """The containers of the project, ended ones included."""
        label = "label=com.docker.compose"
        of_service = [f"--filter={label}.service={service}"] if service else []
        found = self.docker("ps", "--all", "--quiet", f"--filter={label}.project=sluice", *of_service)
        return self.inspect(*found.stdout.split())

    def in_root(self, *command: str) -> None:
        """Run one of the tools of the engine's root, such as setfacl."""
        run(["chroot", str(self._root), *command], log=self._work / "command.log")

    def _mount(self) -> None:
        """Only in these namespaces: the root with the kernel's file systems, the engine's data and the folder."""
        data = self._work / "data"
        data.mkdir(exist_ok=True)
        mounts: list[list[str | Path]] = [["--make-rprivate", "/"], ["--bind", self._root, self._root]]
        mounts += [["--rbind", f"/{name}", self._root / name] for name in ("proc", "sys", "dev")]
        mounts += [["-t", "tmpfs", "tmpfs", self._root / name] for name in ("run", "tmp")]
        for source, target in ((data, "var/lib/docker"), (self._folder, "checkout")):
            (self._root / target).mkdir(parents=True, exist_ok=True)
            mounts.append(["--bind", source, self._root / target])
        for mount in mounts:
            subprocess.run(["mount", *map(str, mount)], check=True)
        (self._root / "etc/resolv.conf").write_text(f"nameserver {NAMESERVER}\n", encoding="utf-8")

    def _import_images(self) -> None:
        for image in IMAGES:
            if self.docker("image", "inspect", image.name, check=False).returncode:
                source = self._folder / image.file
                os.link(self._work / image.file, source)
                changes = [word for change in image.changes for word in ("--change", change)]
                self.docker("import", *changes, image.file, image.name)
                source.unlink()


def _weigh_group() -> None:
    """Have the containers together count as ten processes."""
    for pattern, weight in WEIGHTS.items():
        path = Path("/sys/fs/cgroup", pattern.format(GROUP))
        if (path.parent.parent / "cgroup.procs").exists():
            path.parent.mkdir(exist_ok=True)
            if path.exists():
                path.write_text(str(weight), encoding="utf-8")


def _remove_group(group: Path) -> None:
    """Remove an empty control group with those in it."""
    for path, _, _ in os.walk(group, topdown=False):
        try:
            Path(path).rmdir()
        except OSError:  # somebody else's, with processes in it
            return
