"""What an operator sees of Sluice in Prefect's UI, in a real browser.

With ``TEST_SCREENSHOTS`` naming a folder, the pictures of docs/operations.md are written there.
"""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.test_browser import SLOW_MS, logged_in
from tests.support.browser import chromium
from tests.support.installation import Installation
from tests.support.waiting import wait_until

TRIGGER = {
    "type": "event",
    "match": {"prefect.resource.id": "sluice.dead-letter.*"},
    "match_related": {},
    "after": [],
    "expect": ["sluice.dead-letter.kept"],
    "for_each": [],
    "posture": "Reactive",
    "threshold": 1,
    "within": 0,
}


@pytest.fixture(scope="module")
def page(installation: Installation) -> Iterator[Page]:
    """A page that is logged in."""
    with chromium() as browser:
        yield _page(browser, installation)


def _page(browser: Browser, installation: Installation) -> Page:
    context = browser.new_context(viewport={"width": 1100, "height": 760})
    context.set_default_timeout(SLOW_MS)
    return logged_in(context, installation)


def picture(page: Page, name: str) -> None:
    """Write the picture that the documentation shows, where that is asked for."""
    if folder := os.environ.get("TEST_SCREENSHOTS"):
        page.wait_for_load_state("networkidle")
        page.screenshot(path=Path(folder) / f"{name}.png")


def publish(installation: Installation, data: dict[str, Any]) -> str:
    event = {"specversion": "1.0", "id": uuid.uuid4().hex, "source": "shop", "type": "order.created", "data": data}
    installation.redis.xadd("sluice.events", {"event": json.dumps(event)})
    return str(event["id"])


def test_an_order_shows_its_story_asks_with_the_facts_and_is_listed_when_it_was_refused(
    installation: Installation, page: Page
) -> None:
    order = f"A-{uuid.uuid4().hex[:6]}"
    publish(installation, {"order_id": order, "amount": 129.5, "customer": "Ada *&* Co"})
    name = f"order {order}"
    (run,) = wait_until(
        lambda: installation.runs("order-approval", name={"any_": [name]}, state={"type": {"any_": ["PAUSED"]}})
    )
    shown = json.loads(installation.sluice("runs", "show", run["id"], "--json").stdout)
    page.goto(shown["url"])
    assert "/v2/" in page.url, "a printed link opens the version of the UI that its address opens"
    tags = page.locator("[data-slot=tag-badge-group-item]")
    expect(tags.first).to_have_text(f"awaits:order-{order}", timeout=SLOW_MS)
    page.get_by_role("tab", name="Artifacts").click()
    expect(page.get_by_text(f"Timeline of order {order}").first).to_be_visible(timeout=SLOW_MS)
    picture(page, "waiting-run")

    page.get_by_role("button", name="Open menu").first.click()
    page.get_by_role("menuitem", name="Resume").click()
    form = page.get_by_role("dialog")
    expect(form.get_by_role("heading", name=f"May order {order} go out?")).to_be_visible(timeout=SLOW_MS)
    expect(form.get_by_text("129.50 for Ada *&* Co")).to_be_visible()
    expect(form.get_by_role("button", name="Select")).to_be_visible()
    picture(page, "approval")
    form.get_by_role("button", name="Select").click()
    page.get_by_role("option", name="false").click()
    form.get_by_role("button", name="Resume").click()

    wait_until(lambda: installation.runs("order-approval", id={"any_": [run["id"]]})[0]["state_type"] == "CANCELLED")
    shown_there = {"artifacts": {"key": {"any_": ["sluice-overview"]}}}
    wait_until(
        lambda: "| inbox |" in installation.prefect.post("/artifacts/filter", json=shown_there).json()[0]["data"]
    )
    page.goto(f"{installation.status['prefect_ui']}/v2/deployments/deployment/{run['deployment_id']}?tab=Runs")
    expect(page.get_by_text(name).first).to_be_visible(timeout=SLOW_MS)
    expect(page.get_by_text("Cancelled").first).to_be_visible()

    page.get_by_role("tab", name="Description").click()
    page.get_by_role("link", name="Overview of Sluice").click()
    expect(page.get_by_role("heading", name="What waits", exact=True)).to_be_visible(timeout=SLOW_MS)
    expect(page.get_by_role("cell", name="inbox", exact=True).first).to_be_visible()
    picture(page, "overview")


@contextmanager
def chat() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The webhook of a chat, and what was said there."""
    said: list[dict[str, str]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            said.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", said
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def block_for(installation: Installation, url: str) -> str:
    """A notification block of Prefect that calls the webhook; returns its name."""
    kind = installation.prefect.get("/block_types/slug/custom-webhook").raise_for_status().json()["id"]
    asked = {"block_schemas": {"block_type_id": {"any_": [kind]}}}
    schema = installation.prefect.post("/block_schemas/filter", json=asked).raise_for_status().json()[0]["id"]
    name = f"chat-{uuid.uuid4().hex[:6]}"
    message = {"subject": "{{subject}}", "body": "{{body}}"}
    block = {
        "name": name,
        "block_type_id": kind,
        "block_schema_id": schema,
        "data": {"name": name, "url": url, "method": "POST", "json_data": message},
    }
    installation.prefect.post("/block_documents/", json=block).raise_for_status()
    return name


def test_an_automation_that_was_made_in_the_ui_tells_a_chat_of_dead_letters(
    installation: Installation, page: Page
) -> None:
    with chat() as (url, said):
        block = block_for(installation, url)
        page.goto(f"{installation.status['prefect_ui']}/v2/automations/create")
        page.get_by_role("combobox").first.click()
        page.get_by_role("option", name="Custom").click()
        page.get_by_role("tab", name="JSON").click()
        wait_until(lambda: _takes_trigger(page), what="the form of an automation takes the trigger from its editor")
        page.get_by_role("button", name="Next").click()
        page.get_by_role("combobox", name="select action").click()
        page.get_by_role("option", name="Send a notification").click()
        page.get_by_label("Select notification block").click()
        page.get_by_role("option", name=block).click()
        page.locator("input[name='actions.0.subject']").fill("{{ event.payload.code }}")
        page.locator("textarea[name='actions.0.body']").fill("{{ event.payload.reason }}: {{ event.payload.look }}")
        picture(page, "automation")
        page.get_by_role("button", name="Next").click()
        page.get_by_label("Automation Name").fill("dead letters")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("link", name="dead letters").first).to_be_visible(timeout=SLOW_MS)
        named = {"automations": {"name": {"any_": ["dead letters"]}}}
        (automation,) = installation.prefect.post("/automations/filter", json=named).raise_for_status().json()
        assert TRIGGER.items() <= automation["trigger"].items()

        event = publish(installation, {"order_id": "without an amount"})
        (letter,) = wait_until(lambda: [one for one in _letters(installation) if one["event_id"] == event])
        asked = {"filter": {"resource": {"id": [f"sluice.dead-letter.{letter['id']}"]}}}
        wait_until(
            lambda: installation.prefect.post("/events/filter", json=asked).json()["events"],
            what=f"an event in Prefect's feed about {letter}",
        )
        acted = {"filter": {"resource": {"id": [f"prefect.automation.{automation['id']}"]}}}
        message = wait_until(
            lambda: next((one for one in said if "amount" in one["body"]), None),
            what=lambda: f"a message; Prefect says: {installation.prefect.post('/events/filter', json=acted).json()}",
        )
    assert message["subject"] == letter["code"]
    assert message["body"] == f"{letter['reason']}: sluice dead show {letter['id']}"
    now = datetime.now(UTC)  # by itself the page ends with the last whole minute
    start, end = (f"{now + timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%S.000Z}" for minutes in (-5, 5))
    page.goto(f"{installation.status['prefect_ui']}/v2/events?rangeType=range&start={start}&end={end}")
    kept = page.get_by_text("sluice.dead-letter.kept").first
    expect(kept).to_be_visible(timeout=SLOW_MS)
    kept.evaluate("element => element.scrollIntoView({block: 'center'})")
    picture(page, "events")
    installation.sluice("dead", "discard", letter["id"], "--yes", check=False)


def _takes_trigger(page: Page) -> bool:
    """Write the trigger into the editor; false if the form has left before the editor's change reached it."""
    page.locator(".cm-content").fill(json.dumps(TRIGGER, indent=1))
    page.get_by_role("button", name="Next").click()
    page.get_by_role("button", name="Previous").click()
    tab = page.get_by_role("tab", name="JSON")
    if tab.get_attribute("aria-selected") != "true":
        tab.click()
    return '"sluice.dead-letter.kept"' in page.locator(".cm-content").inner_text()


def _letters(installation: Installation) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(installation.sluice("dead", "list", "--json").stdout)
    return found
