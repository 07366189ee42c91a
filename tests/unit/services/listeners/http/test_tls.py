"""HTTPS: the certificate of the settings, a new one without a restart, and callers that have one."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from config.api import ApiSettings
from events.errors import ConfigError
from services.listeners.http import tls
from services.listeners.http.bodies import CLOUDEVENT
from services.store.connection import AsyncRedis
from tests.support.certificates import Authority, Pair, serial_of
from tests.support.sources import cloudevent, running
from tests.support.waiting import eventually
from tests.unit.services.listeners.http.serving import Site


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "LOOK_SECONDS", 0.02)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


def secure(pair: Pair, **more: object) -> ApiSettings:
    return ApiSettings.model_validate(
        {"certificate_file": pair.certificate, "key_file": pair.key, "header_timeout_seconds": 1, **more}
    )


@asynccontextmanager
async def serving(site: Site, client: ssl.SSLContext) -> AsyncIterator[httpx.AsyncClient]:
    async with running(site.listener):
        await eventually(lambda: _listens(site))
        url = f"https://127.0.0.1:{site.listener.port}"
        async with httpx.AsyncClient(base_url=url, verify=client, timeout=60) as found:
            yield found


async def _listens(site: Site) -> bool:
    return bool(site.listener.port)


async def publish(client: httpx.AsyncClient, number: int) -> int:
    body = cloudevent(f"tls-{number}")
    answer = await client.post("/events", content=body, headers={"content-type": CLOUDEVENT})
    return answer.status_code


async def serial_shown(port: int | None, context: ssl.SSLContext) -> int:
    """The serial number of the certificate that the server shows to a new connection."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown = writer.get_extra_info("peercert")
    writer.close()
    return int(shown["serialNumber"], 16)


async def test_an_event_over_https_and_nothing_over_http(redis: AsyncRedis, authority: Authority) -> None:
    site = Site(redis, secure(authority.issue("api")))
    async with serving(site, authority.client()) as client:
        assert await publish(client, 1) == 202
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{site.listener.port}") as plain:
            with pytest.raises(httpx.TransportError):
                await plain.get("/health/live")
        async with httpx.AsyncClient(base_url=str(client.base_url)) as stranger:
            with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
                await stranger.get("/health/live")


async def test_a_new_certificate_is_shown_without_a_restart_and_no_request_fails(
    redis: AsyncRedis, authority: Authority
) -> None:
    pair = authority.issue("api")
    site = Site(redis, secure(pair))
    async with serving(site, authority.client()) as client:
        answers: list[int] = []
        ended = asyncio.Event()

        async def ask(kept: bool) -> None:
            number = 0
            while not ended.is_set():
                number += 1
                if kept:
                    answers.append(await publish(client, number))
                    continue
                async with httpx.AsyncClient(base_url=client.base_url, verify=authority.client(), timeout=60) as new:
                    answers.append(await publish(new, 100_000 + number))

        asking = [asyncio.create_task(ask(kept)) for kept in (True, False)]
        for turn in range(3):
            renewed = authority.issue(f"new-{turn}")
            pair.key.write_bytes(renewed.key.read_bytes())  # for a moment the two do not belong together
            enough = len(answers) + 5
            await eventually(lambda enough=enough: _more(answers, enough))
            pair.certificate.write_bytes(renewed.certificate.read_bytes())
            await eventually(
                lambda renewed=renewed: _shows(site, authority, serial_of(renewed)), what="the new certificate is shown"
            )
        ended.set()
        await asyncio.gather(*asking)
        assert set(answers) == {202}


async def _more(answers: list[int], than: int) -> bool:
    return len(answers) >= than


async def _shows(site: Site, authority: Authority, serial: int) -> bool:
    return await serial_shown(site.listener.port, authority.client()) == serial


async def test_a_caller_without_a_certificate_of_the_authority_gets_no_answer(
    redis: AsyncRedis, authority: Authority, tmp_path: Path
) -> None:
    others = Authority(tmp_path / "others", "others")
    site = Site(redis, secure(authority.issue("api"), client_ca_file=authority.file))
    mine, foreign = authority.issue("me", user="ada"), others.issue("me", user="ada")
    async with serving(site, authority.client(mine)) as client:
        assert await publish(client, 1) == 202
        for context in (authority.client(), authority.client(foreign)):
            async with httpx.AsyncClient(base_url=client.base_url, verify=context) as refused:
                with pytest.raises(httpx.TransportError):
                    await refused.get("/health/live")


async def test_a_handshake_that_is_not_made_is_ended(redis: AsyncRedis, authority: Authority) -> None:
    site = Site(redis, secure(authority.issue("api")))
    async with serving(site, authority.client()) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.listener.port)
        async with asyncio.timeout(30):  # uvicorn alone would wait for a minute
            assert await reader.read() == b""
        writer.close()
        assert await publish(client, 1) == 202


async def test_files_that_cannot_be_used_are_told_at_the_start(redis: AsyncRedis, authority: Authority) -> None:
    one, other = authority.issue("one"), authority.issue("other")
    site = Site(redis, secure(Pair(one.certificate, other.key)))
    with pytest.raises(ConfigError, match="is not the key of"):
        await site.listener.run()
