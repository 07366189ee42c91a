"""The Prefect UI of `sluice up` in a real browser: one link logs in, and pages of other origins get nothing."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.support.browser import another_origin, chromium
from tests.support.installation import Installation

REBOUND = "rebound.example"
SLOW_MS = 60_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium(f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1") as browser:
        yield browser


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A visitor who has never been here."""
    context = browser.new_context()
    context.set_default_timeout(SLOW_MS)
    yield context
    context.close()


def logged_in(context: BrowserContext, installation: Installation) -> Page:
    page = context.new_page()
    page.goto(installation.sluice("ui").stdout.strip())
    # Prefect's page forgets the password when it is left while it asks whether that is right.
    expect(page.get_by_role("link", name="Dashboard").first).to_be_visible(timeout=SLOW_MS)
    return page


def run_named(installation: Installation, name: str) -> str:
    deployment = installation.prefect.get("/deployments/name/health-check/default").raise_for_status().json()["id"]
    answer = installation.prefect.post(f"/deployments/{deployment}/create_flow_run", json={"name": name})
    run = answer.raise_for_status().json()
    return str(run["id"])


def test_the_link_logs_in_and_the_ui_finds_a_run_on_this_server_alone(
    installation: Installation, context: BrowserContext
) -> None:
    asked: set[str] = set()
    context.on("request", lambda request: asked.add(urlsplit(request.url).netloc))
    name = f"look-at-me-{uuid.uuid4().hex[:6]}"
    run_id = run_named(installation, name)
    page = logged_in(context, installation)
    ui = installation.status["prefect_ui"]
    page.goto(f"{ui}/v2/runs")
    expect(page.get_by_text(name).first).to_be_visible(timeout=SLOW_MS)
    shown = installation.sluice("runs", "show", run_id, "--json").stdout
    page.goto(json.loads(shown)["url"])  # as the log and .error.json name it, too
    expect(page.get_by_text(name).first).to_be_visible(timeout=SLOW_MS)
    assert {host for host in asked if host.startswith(("127.0.0.1", "localhost"))} == {urlsplit(ui).netloc}


def test_the_ui_shows_nothing_without_the_login(installation: Installation, context: BrowserContext) -> None:
    name = f"not-for-you-{uuid.uuid4().hex[:6]}"
    run_id = run_named(installation, name)
    page = context.new_page()
    for path in ("/runs", f"/runs/flow-run/{run_id}", f"/v2/runs/flow-run/{run_id}"):
        page.goto(f"{installation.status['prefect_ui']}{path}")
        page.wait_for_load_state("networkidle")
        assert name not in page.content()
        assert page.evaluate("localStorage.getItem('prefect-password')") is None


def test_a_link_is_good_once(installation: Installation, browser: Browser) -> None:
    link = installation.sluice("ui").stdout.strip()
    first, second = browser.new_context(), browser.new_context()
    try:
        page = first.new_page()
        page.goto(link)
        page.wait_for_url(lambda url: "/sluice/login" not in url)
        assert page.evaluate("localStorage.getItem('prefect-password')")
        late = second.new_page()
        late.goto(link)
        expect(late.get_by_text("used already")).to_be_visible(timeout=SLOW_MS)
        assert late.evaluate("localStorage.getItem('prefect-password')") is None
        assert "#" not in late.url
        again = first.new_page()  # whoever is logged in may click it again
        again.goto(link)
        again.wait_for_url(lambda url: "/sluice/login" not in url)
    finally:
        first.close()
        second.close()


ATTACK = (Path(__file__).parents[1] / "support" / "foreign_page.js").read_text()


def attacked(page: Page, installation: Installation) -> dict[str, str]:
    name = f"page-{uuid.uuid4().hex}"
    prefect, api = installation.status["prefect_api"], installation.status["api"]
    outcomes: dict[str, str] = page.evaluate(ATTACK, [prefect, api, name])
    found = installation.prefect.post("/variables/filter", json={"variables": {"name": {"any_": [name]}}}).json()
    assert found == [], "the page has made a variable"
    assert installation.sluice("events", "show", name, check=False).returncode != 0, "the page has published an event"
    return outcomes


def test_a_page_of_another_origin_reads_and_changes_nothing(
    installation: Installation, context: BrowserContext
) -> None:
    logged_in(context, installation).close()
    with another_origin() as origin:
        page = context.new_page()
        page.goto(origin)
        outcomes = attacked(page, installation)
    assert len(outcomes) == 12
    assert {what: said for what, said in outcomes.items() if said != "refused"} == {}


def test_the_ui_is_not_shown_in_a_frame_of_another_page(installation: Installation, context: BrowserContext) -> None:
    logged_in(context, installation).close()
    with another_origin() as origin:
        page = context.new_page()
        page.goto(origin)
        page.evaluate(
            "url => new Promise(done => { const frame = document.createElement('iframe'); frame.src = url;"
            " frame.onload = done; document.body.append(frame); })",
            f"{installation.status['prefect_ui']}/runs",
        )
        assert all("Prefect" not in frame.content() for frame in page.frames if frame != page.main_frame)


@pytest.mark.parametrize("which", ["prefect_ui", "api"])
def test_a_name_that_was_made_to_point_here_is_not_served(
    installation: Installation, context: BrowserContext, which: str
) -> None:
    """DNS rebinding: for the browser such a page is of the server's own origin."""
    port = urlsplit(installation.status[which]).port
    page = context.new_page()
    answer = page.goto(f"http://{REBOUND}:{port}/health/live" if which == "api" else f"http://{REBOUND}:{port}/")
    assert answer is not None
    assert answer.status == 421
    assert "SLUICE_ALLOWED_HOSTS" in answer.text()
