"""`sluice up` on servers of the user's own: a Prefect server with a password, and a Redis user with few rights."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.settings import RedisSettings
from demo.installation import Installation
from services.local.embedded_servers import claim_port
from services.store.connection import connect_sync
from tests.support.prefects import start_migrated
from tests.support.valkeys import own_valkey
from tests.support.waiting import wait_until

AUTH = "ada:s3cret-of-the-server"


def documented_acl(checkout: Path, password: str) -> list[str]:
    """The words of the command that docs/security.md gives for Sluice's user in Redis."""
    found = re.search(r"^ACL SETUSER sluice .*$", (checkout / "docs" / "security.md").read_text(), re.MULTILINE)
    assert found, "docs/security.md has the line `ACL SETUSER sluice …`"
    assert ">PASSWORD" in found[0]
    return found[0].replace(">PASSWORD", f">{password}").split()


@pytest.fixture
def secured(tmp_path: Path, checkout: Path) -> Iterator[Installation]:
    """An installation on both."""
    server, prefect_url = start_migrated(tmp_path / "prefect", claim_port(0, "a free port"), auth_string=AUTH)
    with own_valkey(tmp_path / "valkey") as valkey:
        with connect_sync(valkey.url, RedisSettings()) as admin:
            admin.execute_command(*documented_acl(checkout, "pw-of-redis"))
            admin.execute_command("ACL", "SETUSER", "default", "off")
        own = {
            "SLUICE_REDIS_URL": valkey.url,
            "SLUICE_REDIS__USERNAME": "sluice",
            "SLUICE_REDIS__PASSWORD": "pw-of-redis",
            "PREFECT_API_URL": prefect_url,
            "PREFECT_API_AUTH_STRING": AUTH,
        }
        try:
            with Installation(tmp_path / ".sluice", env=own) as running:
                yield running
        finally:
            server.stop()


def test_the_documented_rights_in_redis_and_a_password_for_prefect_are_enough(secured: Installation) -> None:
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
    assert "NOPERM" not in said
    assert "NoPermission" not in said
    assert "no permissions" not in said
    for password in ("pw-of-redis", AUTH):
        assert password not in said
        assert password not in secured.sluice("status", "--json").stdout
