"""The Resume form of both of Prefect's UIs: what it says, and what a press with the form as it stands does."""

from __future__ import annotations

import asyncio
import re

import pytest
from playwright.sync_api import Locator, Page, expect
from pydantic import BaseModel

import sluice
from tests.integration.signals.conftest import Desk, new_key
from tests.integration.signals.test_waits import Running
from tests.support import waiting_flows as flows
from tests.support.browser import chromium
from tests.support.waiting import eventually

SLOW_MS = 60_000
CONFIRM = re.compile(r"^\s*(Resume|Submit)\s*$")
ASKED = f"### Order 1042\n\n| amount | customer |\n| --- | --- |\n| **129.50** | {sluice.in_markdown('Ada <b>& Co')} |"

pytestmark = pytest.mark.slow


class AllDefault(BaseModel):
    approved: bool = True
    by: str = ""


class Nothing(BaseModel):
    """A form without fields."""


def open_form(page: Page, prefect_url: str, run_id: str, version: str) -> Locator:
    """What holds the form of the run that waits."""
    page.goto(f"{prefect_url.removesuffix('/api')}{version}/runs/flow-run/{run_id}")
    if version:
        page.get_by_role("button", name="Open menu").first.click()
        page.get_by_role("menuitem", name="Resume").click()
        form = page.get_by_role("dialog")
    else:
        page.get_by_role("button", name=CONFIRM).first.click()
        form = page.locator(".p-modal")
    expect(form.get_by_text("Waits for a signal").first).to_be_visible(timeout=SLOW_MS)
    expect(form.get_by_text(re.compile("go on|approved", re.IGNORECASE)).first).to_be_visible(timeout=SLOW_MS)
    return form


def press(page: Page, form: Locator) -> str:
    """What Prefect says to the form as it stands."""
    with page.expect_response(lambda response: response.url.endswith("/resume"), timeout=SLOW_MS) as answer:
        form.get_by_role("button", name=CONFIRM).last.click()
    return str(answer.value.json()["status"])


def press_carelessly(page: Page, form: Locator) -> None:
    """Read what is asked, and press without having decided."""
    expect(form.get_by_role("heading", name="Order 1042")).to_be_visible()
    expect(form.get_by_text("129.50", exact=True)).to_be_visible()
    expect(form.get_by_text("Ada <b>& Co")).to_be_visible()
    form.get_by_role("button", name=CONFIRM).last.click()
    expect(page.get_by_text("'approved' is a required property").first).to_be_visible()


def press_all(prefect_url: str, run_ids: list[str], version: str) -> None:
    """Press Resume for each of the runs; the last one wants a decision."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(SLOW_MS)
        for run_id in run_ids:
            form = open_form(page, prefect_url, run_id, version)
            if run_id == run_ids[-1]:
                press_carelessly(page, form)
                if not version:
                    return
                form.get_by_role("button", name="Select").click()
                page.get_by_role("option", name="true").click()
            assert press(page, form) == "ACCEPT"


@pytest.mark.parametrize("version", ["", "/v2"])
async def test_one_press_answers_a_wait_where_nothing_has_to_be_decided_and_else_is_refused(
    resumer: Desk, prefect_url: str, version: str
) -> None:
    asked = [{}, {"input": AllDefault}, {"input": Nothing}, {"input": flows.Approval, "description": ASKED}]
    runs = [Running(resumer, flows.approving, new_key(), **one) for one in asked]
    run_ids = [await running.waits() for running in runs]
    for run_id in run_ids:
        await eventually(lambda run_id=run_id: resumer.hints.wait_of(run_id), what="the run was heard to wait")

    async def shown() -> bool:
        keys = [(run_id, (await resumer.runs.read(run_id)).keyset) for run_id in run_ids]
        return all([len(await resumer.runs.inputs(one, [of["schema"], of["description"]])) > 1 for one, of in keys])

    await eventually(shown, what="the forms are shown")
    asked_last = await resumer.runs.form(await resumer.runs.read(run_ids[-1]))
    assert asked_last is not None
    assert asked_last.description.startswith(ASKED + "\n\nWaits for a signal")
    assert list(asked_last.schema["properties"]) == ["approved", "by"]
    await asyncio.to_thread(press_all, prefect_url, run_ids, version)
    if not version:
        assert (await resumer.runs.read(run_ids[-1])).waiting
        await resumer.send(run_id=run_ids[-1], input={"approved": True})
    approved = flows.Approval(approved=True, by="nobody")
    assert [await running.answer() for running in runs] == [{}, AllDefault(), Nothing(), approved]

    pressed = run_ids if version else run_ids[:-1]

    async def listed() -> bool:
        records = [record for run_id in pressed for record in await resumer.store.of_run(run_id)]
        return [(one.status, one.signal.by) for one in records] == [("applied", "Prefect UI or API")] * len(pressed)

    await eventually(listed, what="each press is known as an answer")
