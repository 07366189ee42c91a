"""Redis behind a password, behind TLS and behind Sentinels."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from redis.asyncio.connection import SSLConnection

from config.settings import RedisSettings
from config.sources import RedisSource
from events.errors import TransientError
from services.listeners.redis.source import RedisListener, redis_listeners
from services.store.connection import AsyncRedis, connect, connect_sync
from services.store.redis_errors import translated
from tests.support.certificates import Authority, Pair
from tests.support.proxy import in_front_of
from tests.support.sources import QUICK, Door, Letters, cloudevent, intake, running
from tests.support.valkeys import OwnValkey, own_valkey, self_signed, sentinel
from tests.support.waiting import eventually

BOTH = RedisSource(channel="sluice.events", stream="sluice.events", list="test:list")


def parts(redis: AsyncRedis, door: Door, url: str, settings: RedisSettings) -> dict[str, RedisListener]:
    return redis_listeners(
        "events",
        BOTH,
        intake=intake(door, Letters()),
        redis=redis,
        connect=lambda: connect(url, settings),
        settings=QUICK,
    )


async def everything_works(redis: AsyncRedis, url: str, settings: RedisSettings, publisher: AsyncRedis) -> None:
    door = Door(redis)
    listeners = parts(redis, door, url, settings)
    async with running(*listeners.values()):
        await eventually(lambda: _ready(listeners))
        await publisher.publish("sluice.events", cloudevent("published"))
        await publisher.xadd("sluice.events", {"event": cloudevent("added")})
        await publisher.rpush("test:list", cloudevent("pushed"))
        await eventually(lambda: _ids(door, {"published", "added", "pushed"}))


async def _ready(listeners: dict[str, RedisListener]) -> bool:
    return all(part.status()["ready"] for part in listeners.values())


async def _ids(door: Door, wanted: set[str]) -> bool:
    return set(await door.ids()) == wanted


async def _secured(valkey: OwnValkey, password: str) -> AsyncRedis:
    opener = connect(valkey.url, RedisSettings())
    await opener.config_set("requirepass", password)
    await opener.aclose()
    return connect(valkey.url, RedisSettings(password=password))


async def test_a_password_may_stand_in_the_settings(tmp_path: Path) -> None:
    with own_valkey(tmp_path) as valkey:
        redis = await _secured(valkey, "s3cret")
        await everything_works(redis, valkey.url, RedisSettings(password="s3cret"), redis)
        assert connect_sync(valkey.url, RedisSettings(password="s3cret")).ping()
        await redis.aclose()


async def test_a_password_may_stand_in_the_url(tmp_path: Path) -> None:
    with own_valkey(tmp_path) as valkey:
        redis = await _secured(valkey, "s3cret")
        url = valkey.url.replace("redis://", "redis://:s3cret@")
        with_url = connect(url, RedisSettings())
        await everything_works(with_url, url, RedisSettings(), redis)
        await redis.aclose()
        await with_url.aclose()


async def test_a_wrong_password_is_waited_out_and_said(tmp_path: Path) -> None:
    with own_valkey(tmp_path) as valkey:
        redis = await _secured(valkey, "s3cret")
        wrong = connect(valkey.url, RedisSettings(password="guess"))
        listeners = parts(wrong, Door(wrong), valkey.url, RedisSettings(password="guess"))
        async with running(*listeners.values()):
            await eventually(lambda: _all_degraded(listeners))
            await redis.config_set("requirepass", "guess")
            await eventually(lambda: _ready(listeners))
        await redis.aclose()
        await wrong.aclose()


async def _all_degraded(listeners: dict[str, RedisListener]) -> bool:
    return all("degraded" in part.status() for part in listeners.values())


async def test_tls_with_a_certificate_of_ones_own(tmp_path: Path) -> None:
    """The embedded Valkey speaks no TLS, so a proxy that does stands in front of it, as stunnel would."""
    context, certificate = self_signed(tmp_path)
    with own_valkey(tmp_path / "data") as valkey:
        plain = connect(valkey.url, RedisSettings())
        async with in_front_of(valkey.url, tls=context) as (_, url):
            assert url.startswith("rediss://")
            settings = RedisSettings(ca_file=certificate)
            redis = connect(url, settings)
            await everything_works(redis, url, settings, plain)
            await redis.aclose()
            stranger = connect(url, RedisSettings())
            with pytest.raises(TransientError, match="certificate"), translated():
                await stranger.ping()
            await stranger.aclose()
        await plain.aclose()


async def test_a_server_that_asks_for_a_certificate_gets_it(tmp_path: Path) -> None:
    context, certificate = self_signed(tmp_path)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificate)
    with own_valkey(tmp_path / "data") as valkey:
        async with in_front_of(valkey.url, tls=context) as (_, url):
            known = RedisSettings(ca_file=certificate, certificate_file=certificate, key_file=tmp_path / "key.pem")
            redis = connect(url, known)
            assert await redis.ping()
            await redis.aclose()
            stranger = connect(url, RedisSettings(ca_file=certificate))
            with pytest.raises(TransientError), translated():
                await stranger.ping()
            await stranger.aclose()


async def test_new_files_of_tls_are_read_when_it_connects_again(tmp_path: Path) -> None:
    """A client that has connected before, and whose authority, certificate and key were all replaced since."""
    old, new = Authority(tmp_path / "old", "old"), Authority(tmp_path / "new", "new")
    files = Pair(tmp_path / "client.pem", tmp_path / "client.key")
    authorities = tmp_path / "authorities.pem"
    files.replace_with(old.issue("client"))
    authorities.write_bytes(old.file.read_bytes())
    server = old.server(old.issue("server"), asks_for_certificates=True)
    settings = RedisSettings(ca_file=authorities, certificate_file=files.certificate, key_file=files.key)
    with own_valkey(tmp_path / "data") as valkey:
        async with in_front_of(valkey.url, tls=server) as (proxy, url):
            redis, blocking = connect(url, settings), connect_sync(url, settings)
            assert await redis.ping()
            assert await asyncio.to_thread(blocking.ping)
            renewed = new.issue("server")
            server.load_cert_chain(renewed.certificate, renewed.key)
            server.load_verify_locations(new.file)
            assert await redis.ping(), "what is connected stays connected"
            files.replace_with(new.issue("client"))
            authorities.write_bytes(new.file.read_bytes())
            proxy.cut()
            assert await redis.ping()
            assert await asyncio.to_thread(blocking.ping)
            await redis.aclose()
            blocking.close()


async def test_a_user_may_stand_in_the_settings(tmp_path: Path) -> None:
    with own_valkey(tmp_path) as valkey:
        opener = connect(valkey.url, RedisSettings())
        await opener.acl_setuser("ann", enabled=True, passwords=["+s3cret"], commands=["+@all"], keys=["*"])
        redis = connect(valkey.url, RedisSettings(username="ann", password="s3cret"))
        assert await redis.acl_whoami() == "ann"
        await redis.aclose()
        await opener.aclose()


async def test_sentinels_may_have_a_password_of_their_own(tmp_path: Path) -> None:
    with own_valkey(tmp_path / "a") as valkey, sentinel(tmp_path / "s", valkey, password="s3cret") as address:
        known = RedisSettings(sentinels=(address,), sentinel_password="s3cret")
        redis = connect("redis://mymaster/0", known)
        assert await asyncio.wait_for(redis.ping(), 30)
        assert connect_sync("redis://mymaster/0", known).ping()
        await redis.aclose()
        stranger = connect("redis://mymaster/0", RedisSettings(sentinels=(address,)))
        with pytest.raises(TransientError, match="No master"), translated():  # said, and not retried for half a minute
            await asyncio.wait_for(stranger.ping(), 20)
        await stranger.aclose()


async def test_a_failover_by_sentinel_loses_nothing_that_was_replicated(tmp_path: Path) -> None:
    with (
        own_valkey(tmp_path / "a") as first,
        own_valkey(tmp_path / "b") as second,
        sentinel(tmp_path / "s", first) as address,
    ):
        direct = connect(second.url, RedisSettings())
        await direct.replicaof("127.0.0.1", first.port)
        await eventually(lambda: _replicates(direct))  # the primary waits 5 s for other replicas before the first sync
        settings = RedisSettings(sentinels=(address,), connect_timeout_seconds=1)
        url = "redis://mymaster/0"
        redis = connect(url, settings)
        door = Door(redis)
        listeners = parts(redis, door, url, settings)
        async with running(*listeners.values()):
            await eventually(lambda: _ready(listeners))
            await redis.xadd("sluice.events", {"event": cloudevent("before")})
            await eventually(lambda: _ids(door, {"before"}))
            assert await redis.wait(1, 60_000) == 1
            await eventually(lambda: _knows_replica(address))
            first.kill()
            await eventually(lambda: _is_primary(direct))
            await direct.xadd("sluice.events", {"event": cloudevent("after")})
            await direct.rpush("test:list", cloudevent("pushed"))
            await eventually(lambda: _heard(direct))
            await eventually(lambda: _ids(door, {"before", "after", "pushed", "published"}))
        await redis.aclose()
        await direct.aclose()


async def _replicates(replica: AsyncRedis) -> bool:
    return bool((await replica.info("replication"))["master_link_status"] == "up")


async def _knows_replica(address: str) -> bool:
    client = connect(f"redis://{address}", RedisSettings())
    try:
        (state,) = (await client.sentinel_masters()).values()
        return bool(state["num-slaves"])
    finally:
        await client.aclose()


async def _is_primary(redis: AsyncRedis) -> bool:
    return bool((await redis.role())[0] == b"master")


async def _heard(redis: AsyncRedis) -> bool:
    return bool(await redis.publish("sluice.events", cloudevent("published")))


def test_credentials_and_database_of_the_url_reach_the_primary_behind_sentinels() -> None:
    settings = RedisSettings(sentinels=("127.0.0.1:26379",), password="ignored")
    client = connect("rediss://user:p%40ss@mymaster/3", settings)
    told = client.connection_pool.connection_kwargs
    assert (told["username"], told["password"], told["db"]) == ("user", "p@ss", 3)
    assert client.connection_pool.connection_class.__name__ == "SentinelManagedSSLConnection"
    (asked,) = client.connection_pool.sentinel_manager.sentinels  # type: ignore[attr-defined]
    assert issubclass(asked.connection_pool.connection_class, SSLConnection)
    assert not asked.connection_pool.connection_kwargs["password"]
