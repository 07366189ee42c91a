"""`sluice up` on servers of the user's own: a Prefect server with a password, and a Redis user with few rights."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from config.canary import canary_stream
from config.project import load_project
from config.settings import CHECKOUT, ROLES, RedisSettings
from services.local.embedded_servers import claim_port
from services.store.access.acl import acl_users
from services.store.connection import SyncRedis, connect_sync
from tests.support.faults import REFUSED
from tests.support.installation import Installation
from tests.support.prefects import start_migrated
from tests.support.valkeys import own_valkey
from tests.support.waiting import wait_until

AUTH = "ada:s3cret-of-the-server"

READING = ("status", "events list", "dead list", "signals list", "runs list")
"""Commands that change nothing."""


def documented_acl(checkout: Path, password: str) -> list[str]:
    """The words of the command that docs/security.md gives for Sluice's user in Redis."""
    found = re.search(r"^ACL SETUSER sluice .*$", (checkout / "docs" / "security.md").read_text(), re.MULTILINE)
    assert found, "docs/security.md has the line `ACL SETUSER sluice …`"
    assert ">PASSWORD" in found[0]
    return found[0].replace(">PASSWORD", f">{password}").split()


@contextmanager
def own_installation(
    folder: Path, users: Mapping[str, str], *, make_users: Callable[[SyncRedis], object]
) -> Iterator[Installation]:
    """An installation on both."""
    server, prefect_url = start_migrated(folder / "prefect", claim_port(0, "a free port"), auth_string=AUTH)
    with own_valkey(folder / "valkey") as valkey:
        with connect_sync(valkey.url, RedisSettings()) as admin:
            make_users(admin)
            admin.execute_command("ACL", "SETUSER", "default", "off")
        own = {
            "SLUICE_REDIS_URL": valkey.url,
            **users,
            "PREFECT_API_URL": prefect_url,
            "PREFECT_API_AUTH_STRING": AUTH,
        }
        try:
            with Installation(folder / ".sluice", env=own) as running:
                yield running
        finally:
            server.stop()


def play(secured: Installation) -> str:
    """An order that waits and is approved, and a file; returns what the installation has said."""
    order = uuid.uuid4().hex[:8]
    event = {"specversion": "1.0", "id": order, "source": "shop", "type": "order.created"}
    secured.redis.publish("sluice.events", json.dumps({**event, "data": {"order_id": order, "amount": 1}}))
    run = wait_until(
        lambda: next((run for run in secured.runs("order-approval") if run["state_name"] == "Paused"), None)
    )
    secured.sluice("signals", "send", "--key", f"order-{order}", "--input", '{"approved": true}')
    wait_until(lambda: secured.runs("order-approval", id={"any_": [run["id"]]})[0]["state_type"] == "COMPLETED")
    inbox = Path(secured.status["watches"]["inbox"])
    (inbox / "a.csv").write_text("city\nOslo\n")
    wait_until((inbox / "done" / "a.csv").exists)
    said = secured.output.read_text()
    assert not [word for word in REFUSED if word in said]
    return said + secured.sluice("status", "--json").stdout


def test_the_documented_rights_in_redis_and_a_password_for_prefect_are_enough(tmp_path: Path, checkout: Path) -> None:
    users = {"SLUICE_REDIS__USERNAME": "sluice", "SLUICE_REDIS__PASSWORD": "pw-of-redis"}
    command = documented_acl(checkout, "pw-of-redis")
    with own_installation(tmp_path, users, make_users=lambda admin: admin.execute_command(*command)) as secured:
        said = play(secured)
    for password in ("pw-of-redis", AUTH):
        assert password not in said


def test_each_role_and_each_command_is_a_user_of_its_own(tmp_path: Path) -> None:
    """The operator's commands and the monitor's are refused nothing that they ask for."""
    sources = load_project(CHECKOUT / "config" / "sluice.yaml", home=tmp_path / ".sluice").sources
    made = acl_users(sources.redis_with_defaults().values(), inner=canary_stream().values())
    file = tmp_path / "passwords.json"
    file.write_text(json.dumps({user.name: user.password for user in made}))

    def make_users(admin: SyncRedis) -> None:
        for user in made:
            admin.execute_command("ACL", "SETUSER", *user.line().split()[1:])

    with own_installation(tmp_path, {"SLUICE_REDIS__USERS_FILE": str(file)}, make_users=make_users) as secured:
        said = play(secured)
        admin = RedisSettings(username="sluice-admin", password=json.loads(file.read_text())["sluice-admin"])
        with connect_sync(secured.env["SLUICE_REDIS_URL"], admin) as client:
            connected = {str(one["user"]) for one in client.client_list()}
            assert {f"sluice-{role}" for role in ROLES} <= connected
            for name in ("sluice-operator", "sluice-monitor"):
                secured.env["SLUICE_REDIS__USERNAME"] = name
                for command in READING:
                    done = secured.sluice(*command.split(), check=False)
                    assert done.returncode == 0, (name, command, done.stdout, done.stderr)
            secured.env["SLUICE_REDIS__USERNAME"] = "sluice-operator"
            secured.sluice("backup", str(tmp_path / "backup"))
            entries: list[Any] = client.acl_log()
            assert not [(one["username"], one["reason"], one["object"], one["context"]) for one in entries]
    assert not [user.name for user in made if user.password in said]
