"""A run that comes to its wait while Prefect is away: it has the time to wait for Prefect, too."""

import asyncio
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect.exceptions import ObjectNotFound

from sluice import own_run
from sluice.own_run import OwnRun

RUN = SimpleNamespace(name="the run")


class Prefect:
    """Answers with each of ``answers`` in turn; with None it does not answer."""

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)

    async def read_flow_run(self, _run_id: Any) -> Any:
        answer = self._answers.pop(0)
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        return answer


def reading(monkeypatch: pytest.MonkeyPatch, *answers: Any) -> OwnRun:
    monkeypatch.setattr(own_run, "_CALL_SECONDS", 0.01)
    monkeypatch.setattr(own_run, "_AGAIN_SECONDS", 0.0)
    return OwnRun(Prefect(*answers), uuid4())


@pytest.mark.parametrize("trouble", [None, httpx.ConnectError("refused"), httpx.RemoteProtocolError("cut"), OSError()])
async def test_a_server_that_does_not_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch, trouble: Any):
    run = reading(monkeypatch, trouble, trouble, RUN)
    assert await run.read_patiently() is RUN


async def test_a_run_that_was_deleted_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ObjectNotFound):
        await reading(monkeypatch, ObjectNotFound(Exception())).read_patiently()
