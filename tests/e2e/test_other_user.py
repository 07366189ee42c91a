"""Another user of the machine: reads nothing of the home, and no server does anything for them."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from tests.support.installation import Installation
from tests.support.waiting import wait_until

NOBODY = 65534

# Everything is imported before the user changes: the interpreter may lie where that one cannot read.
STRANGER = """
import base64, encodings.idna, http.client, json, os, socket, sys
from pathlib import Path

given = json.loads(sys.argv[1])
os.setgroups([]); os.setgid(65534); os.setuid(65534)
said = {}

def tried(what, work):
    try:
        said[what] = work()
    except PermissionError:
        said[what] = "denied"
    except Exception as error:
        said[what] = repr(error)

def asked(port, method, path, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    content = {"Content-Type": "application/json"} if body is not None else {}
    connection.request(method, path, body, {**content, **headers})
    answer = connection.getresponse()
    answer.read()
    return answer.status

for path in given["paths"]:
    tried("read " + path, lambda: os.listdir(path))
    tried("read the file " + path, lambda: Path(path).read_text())
for pid in given["pids"]:
    tried(f"environment of {pid}", lambda: Path(f"/proc/{pid}/environ").read_bytes().decode())
prefect, redis, api = given["prefect"], given["redis"], given["api"]
guess = "Basic " + base64.b64encode(b"admin:pass").decode()
tried("prefect read", lambda: asked(prefect, "GET", "/api/admin/settings"))
tried("prefect read with a guess", lambda: asked(prefect, "GET", "/api/admin/settings", Authorization=guess))
tried("prefect write", lambda: asked(prefect, "POST", "/api/flows/", json.dumps({"name": given["name"]})))
tried("prefect login", lambda: asked(prefect, "POST", "/sluice/login", json.dumps({"ticket": "guess"})))
event = {"specversion": "1.0", "id": given["name"], "source": "stranger", "type": "stranger.came"}
tried("api write", lambda: asked(api, "POST", "/events", json.dumps(event)))
tried("api read", lambda: asked(api, "GET", "/metrics"))

def spoken(*words):
    with socket.create_connection(("127.0.0.1", redis), timeout=30) as connection:
        connection.sendall(b"".join(word.encode() + b"\\r\\n" for word in words))
        return connection.recv(100).decode()

tried("redis read", lambda: spoken("KEYS *"))
tried("redis with a guess", lambda: spoken("AUTH password"))
print(json.dumps(said))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_reads_and_does_nothing(installation: Installation) -> None:
    home, name = installation.home, f"stranger-{uuid.uuid4().hex}"
    roles = [instance["pid"] for role in installation.status["roles"].values() for instance in role["instances"]]
    given = {
        "paths": [str(home), *(str(home / part) for part in ("credentials.json", "running.json", "logs", "prefect"))],
        "pids": [installation.process.pid, *roles],
        "prefect": urlsplit(installation.status["prefect_api"]).port,
        "redis": urlsplit(installation.access["SLUICE_REDIS_URL"]).port,
        "api": urlsplit(installation.status["api"]).port,
        "name": name,
    }
    answer = subprocess.run(
        [sys.executable, "-c", STRANGER, json.dumps(given)], capture_output=True, text=True, check=True, timeout=120
    )
    said: dict[str, Any] = json.loads(answer.stdout)
    for what, outcome in said.items():
        if what.startswith(("read", "environment")):
            assert outcome == "denied", what
    assert said["prefect read"] == said["prefect read with a guess"] == said["prefect write"] == 401
    assert said["prefect login"] == 403
    assert said["api write"] == said["api read"] == 401
    assert said["redis read"].startswith("-NOAUTH")
    assert said["redis with a guess"].startswith("-WRONGPASS")
    assert installation.prefect.post("/flows/filter", json={"flows": {"name": {"any_": [name]}}}).json() == []


def test_everything_in_the_home_is_for_its_user_alone_although_it_began_without_a_umask(
    installation: Installation, inbox: Path
) -> None:
    (inbox / "private.csv").write_text("city\nOslo\n")
    wait_until((inbox / "done" / "private.csv").exists)
    open_to_others = {
        str(path): oct(mode)
        for path in [installation.home, *installation.home.rglob("*")]
        if not path.is_symlink() and (mode := stat.S_IMODE(path.lstat().st_mode)) & 0o077
    }
    assert open_to_others == {}
    assert (installation.home / "data.db").exists()
    assert stat.S_IMODE(inbox.stat().st_mode) == 0o700  # until its owner opens it for those who drop files


def test_no_file_is_left_in_the_home_directory_of_the_user(installation: Installation) -> None:
    """Nor anything of Prefect's telemetry in Sluice's own."""
    assert [path for path in Path(installation.env["HOME"]).rglob("*") if path.is_file()] == []
    assert list(installation.home.rglob(".sdk_telemetry")) == []


def test_no_password_stands_in_a_list_of_processes_in_a_log_or_in_the_status(installation: Installation) -> None:
    secrets = json.loads((installation.home / "credentials.json").read_text())
    password = secrets["prefect_auth_string"].partition(":")[2]
    hidden = [password, secrets["redis_password"], secrets["api_token"]]
    roles = {"sluice: listeners", "sluice: router", "sluice: resumer", "sluice: executor", "sluice: api"}
    for process in psutil.Process(installation.process.pid).children(recursive=True):
        try:
            line = " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        roles.discard(line.strip())
        assert not [secret for secret in hidden if secret in line], line
    assert not roles
    logs = [installation.output, *(installation.home / "logs").iterdir()]
    for said in [
        *(path.read_text(errors="replace") for path in logs),
        installation.sluice("status").stdout,
        installation.sluice("status", "--json").stdout,
    ]:
        assert not [secret for secret in hidden if secret in said]


def test_what_sluice_env_prints_lets_the_plain_prefect_command_and_the_client_library_in(
    installation: Installation,
) -> None:
    lines = installation.sluice("env").stdout
    order = f"env-{uuid.uuid4().hex[:8]}"
    script = (
        'eval "$1"; cd /; "$2" -m prefect deployment ls && '
        '"$2" -c \'import sys, sluice; sluice.publish("measurement.taken", {}, id=sys.argv[1])\' "$3" && '
        'curl -sf -H "Authorization: Bearer $SLUICE_API_TOKEN" "$SLUICE_API_URL/metrics" | head -1'
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "PREFECT_"))}
    answer = subprocess.run(
        ["sh", "-ec", script, "sh", lines, sys.executable, order],
        env={**kept, "PYTHONPATH": str(Path(__file__).parents[2]), "PREFECT_HOME": str(installation.home / "client")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert "ingest-file" in answer.stdout
    wait_until(lambda: installation.sluice("events", "show", order, check=False).returncode == 0)
