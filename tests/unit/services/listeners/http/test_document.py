"""The OpenAPI document and its page: complete, true, and without anything from elsewhere."""

from __future__ import annotations

import re

from starlette.routing import Route

from services.listeners.http.pages import in_html
from services.store.connection import AsyncRedis
from tests.unit.services.listeners.http.serving import QUICK, Site, serving


async def test_the_document_names_every_route_and_needs_no_token(redis: AsyncRedis) -> None:
    site = Site(redis, QUICK.model_copy(update={"token": "secret", "header_timeout_seconds": 10}))
    async with serving(site) as client:
        document = (await client.get("/openapi.json")).json()
    described = {(path, method.upper()) for path, operations in document["paths"].items() for method in operations}
    served = {
        (route.path, method)
        for route in site.listener.inner().routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD" and route.path not in {"/openapi.json", "/docs"}
    }
    assert described == served
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert {"4XX", "503"} <= set(operation["responses"]), path
            is_open = path.startswith(("/health", "/hooks", "/approve"))
            assert operation["security"] == ([] if is_open else [{"token": []}]), path


async def test_the_page_is_whole_by_itself(redis: AsyncRedis) -> None:
    async with serving(Site(redis)) as client:
        page = await client.get("/docs")
    assert page.status_code == 200
    assert "POST /events" in page.text
    assert "<script" not in page.text
    assert re.findall(r'(?:src|href)="([^"]*)"', page.text) == ["openapi.json"]
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy


def test_markdown_of_a_description_becomes_no_script_and_loads_nothing() -> None:
    said = in_html(
        "**bold** <script>x</script> ![i](http://evil/x.png) [l](javascript:alert(1))\n\n| a |\n| - |\n| 1 |"
    )
    assert "<strong>bold</strong>" in said
    assert "<table>" in said
    assert not re.search(r"<script|<img|href=.javascript", said)
