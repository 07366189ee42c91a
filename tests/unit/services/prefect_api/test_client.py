"""Pages of Prefect's filters, and what is told of an answer that refuses."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from prefect.client.orchestration import PrefectClient

from events.errors import NotFound, TransientError
from services.prefect_api.client import PAGE, PrefectApi, PrefectRefused, _refused


class Filtered(PrefectApi):
    """An API with so many rows behind one filter."""

    def __init__(self, rows: int) -> None:
        super().__init__(PrefectClient("http://127.0.0.1:1/api"))
        self.rows = list(range(rows))
        self.asked: list[dict[str, Any]] = []

    async def request(self, method: Any, path: str, *, once: bool = False, **body: Any) -> Any:
        asked = body["json"]
        self.asked.append(asked)
        return self.rows[asked["offset"] : asked["offset"] + asked["limit"]]


@pytest.mark.parametrize("limit", [None, 0, 1, PAGE, PAGE + 1, 10 * PAGE])
@pytest.mark.parametrize("rows", [0, PAGE - 1, PAGE, 2 * PAGE, 2 * PAGE + 5])
async def test_pages_are_asked_for_until_there_is_enough_or_no_more(rows: int, limit: int | None) -> None:
    api = Filtered(rows)
    found: list[Any] = await api.pages("/flow_runs/filter", {"sort": "ID_DESC"}, limit=limit)
    assert found == api.rows[:limit]
    assert all(asked["sort"] == "ID_DESC" and asked["limit"] <= PAGE for asked in api.asked)
    assert len(api.asked) <= len(found) // PAGE + 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, NotFound), (401, TransientError), (429, TransientError), (503, TransientError), (409, PrefectRefused)],
)
def test_an_answer_becomes_the_error_that_says_what_to_do(status: int, kind: type[Exception]) -> None:
    request = httpx.Request("POST", "http://prefect/api/flow_runs/1/resume")
    error = _refused(httpx.Response(status, json={"detail": "because"}, request=request))
    assert type(error) is kind
    assert "because" in str(error)
    if isinstance(error, PrefectRefused):
        assert (error.status, error.said, error.code) == (409, "because", "prefect-refused")
