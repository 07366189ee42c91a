"""The Resume button of both of Prefect's UIs: one press with the form as it stands is an answer, with evidence."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from playwright.sync_api import expect
from pydantic import BaseModel

from tests.integration.signals.conftest import Desk, new_key
from tests.integration.signals.test_waits import Running
from tests.support import waiting_flows as flows
from tests.support.browser import chromium
from tests.support.waiting import eventually

SLOW_MS = 60_000
FIELD = re.compile("go on|approved", re.IGNORECASE)
CONFIRM = re.compile(r"^\s*(Resume|Submit)\s*$")

pytestmark = pytest.mark.slow


class AllDefault(BaseModel):
    approved: bool = True
    by: str = ""


class Nothing(BaseModel):
    """A form without fields."""


def press_resume(prefect_url: str, run_id: str, version: str) -> None:
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(SLOW_MS)
        page.goto(f"{prefect_url.removesuffix('/api')}{version}/runs/flow-run/{run_id}")
        if version:
            page.get_by_role("button", name="Open menu").first.click()
            page.get_by_role("menuitem", name="Resume").click()
            page.get_by_role("dialog").get_by_text(FIELD).first.wait_for()  # the button is there before the form
            in_form = page.get_by_role("dialog").get_by_role("button", name=CONFIRM)
        else:
            page.get_by_role("button", name=CONFIRM).first.click()
            expect(page.get_by_role("button", name=CONFIRM)).to_have_count(2, timeout=SLOW_MS)
            in_form = page.get_by_role("button", name=CONFIRM)
        with page.expect_response(lambda response: response.url.endswith("/resume"), timeout=SLOW_MS) as answer:
            in_form.last.click()
        assert answer.value.json()["status"] == "ACCEPT", answer.value.text()


@pytest.mark.parametrize("version", ["", "/v2"])
@pytest.mark.parametrize(
    ("model", "expected"), [(None, {}), (AllDefault, AllDefault()), (Nothing, Nothing())], ids=["none", "all", "empty"]
)
async def test_one_press_answers_a_wait_and_is_known_as_an_answer(
    resumer: Desk, prefect_url: str, version: str, model: Any, expected: Any
) -> None:
    running = Running(resumer, flows.approving, new_key(), input=model)
    run_id = await running.waits()
    await eventually(lambda: resumer.hints.wait_of(run_id), what="the run was heard to wait")

    async def shown() -> bool:
        keys = (await resumer.runs.read(run_id)).keyset
        return len(await resumer.runs.inputs(run_id, [keys["schema"], keys["description"]])) > 1

    await eventually(shown, what="the form is shown")
    await asyncio.to_thread(press_resume, prefect_url, run_id, version)
    assert await running.answer() == expected

    async def listed() -> list[tuple[str, str | None]]:
        return [(record.status, record.signal.by) for record in await resumer.store.of_run(run_id)]

    assert await eventually(listed) == [("applied", "Prefect UI or API")]
