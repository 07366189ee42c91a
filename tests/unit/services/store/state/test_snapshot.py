"""A copy of a Redis: whole or not at all."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from config.settings import RedisSettings
from events.errors import TransientError
from services.store.connection import AsyncRedis, connect_sync
from services.store.state import snapshot
from services.store.state.snapshot import copy_to

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Both ends of a connection: ours, and the server's."""
    ours, server = socket.socketpair()
    with ours, server:
        ours.settimeout(10)
        yield ours, server


@pytest_asyncio.fixture
async def server(redis: AsyncRedis) -> AsyncIterator[AsyncRedis]:
    """The session's server, which begins a copy at once instead of waiting for other replicas."""
    (before,) = (await redis.config_get("repl-diskless-sync-delay")).values()
    await redis.config_set("repl-diskless-sync-delay", 0)
    yield redis
    await redis.config_set("repl-diskless-sync-delay", before)


async def test_a_copy_is_the_state_of_the_server_for_its_owner_alone(
    server: AsyncRedis, valkey_url: str, tmp_path: Path
) -> None:
    await server.set("test:copied", b"value-in-the-copy")
    file = tmp_path / "dump.rdb"
    with connect_sync(valkey_url, RedisSettings()) as client:
        copy_to(client, file)
        assert client.get("test:copied") == b"value-in-the-copy", "the client goes on"
    held = file.read_bytes()
    assert held[:5] in {b"REDIS", b"VALKE"}
    assert b"value-in-the-copy" in held
    assert file.stat().st_mode & 0o777 == 0o600


async def test_a_file_that_is_there_is_not_written_over(server: AsyncRedis, valkey_url: str, tmp_path: Path) -> None:
    file = tmp_path / "dump.rdb"
    file.write_bytes(b"mine")
    with connect_sync(valkey_url, RedisSettings()) as client, pytest.raises(TransientError):
        copy_to(client, file)
    assert file.read_bytes() == b"mine"


async def test_a_user_who_may_not_copy_is_told_the_right_that_is_missing(
    server: AsyncRedis, valkey_url: str, tmp_path: Path
) -> None:
    await server.execute_command("ACL", "SETUSER", "test-reader", "on", ">secret", "~*", "+@all", "-sync", "-psync")
    try:
        settings = RedisSettings(username="test-reader", password="secret")
        with connect_sync(valkey_url, settings) as client, pytest.raises(TransientError, match="right to SYNC"):
            copy_to(client, tmp_path / "dump.rdb")
    finally:
        await server.execute_command("ACL", "DELUSER", "test-reader")
    assert not (tmp_path / "dump.rdb").exists()


def test_a_server_that_prepares_its_copy_sends_line_feeds_first(ends: Ends) -> None:
    ours, server = ends
    server.sendall(b"\n\n\n$12\r\n")
    assert snapshot._announced(ours) == 12


@pytest.mark.parametrize("said", [b"-NOPERM no\r\n", b"+OK\r\n", b"$EOF:abc\r\n", b"$-1\r\n", b"x" * 5000])
def test_an_answer_that_is_no_copy_is_told_in_the_servers_words(ends: Ends, said: bytes) -> None:
    ours, server = ends
    server.sendall(said)
    with pytest.raises(TransientError, match="does not send its state") as raised:
        snapshot._announced(ours)
    assert said[:20].decode().strip() in str(raised.value)


def test_a_server_that_goes_away_before_its_copy_is_out_of_reach(ends: Ends) -> None:
    ours, server = ends
    server.close()
    with pytest.raises(TransientError, match="instead of sending"):
        snapshot._announced(ours)


def test_a_copy_that_ends_early_is_no_copy(ends: Ends) -> None:
    ours, server = ends
    server.sendall(b"half")
    server.close()
    with pytest.raises(TransientError, match="4 bytes before the end"):
        b"".join(snapshot._pieces(ours, 8))


def test_no_byte_after_the_copy_is_taken_for_part_of_it(ends: Ends) -> None:
    ours, server = ends
    server.sendall(b"the copy*3\r\n")
    assert b"".join(snapshot._pieces(ours, 8)) == b"the copy"
