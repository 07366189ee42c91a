"""The command line and the client library against real servers."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.integration.signals.conftest import Desk, new_key
from tests.support.warm import run_module


class Commands:
    def __init__(self, checkout: Path, valkey_url: str, home: Path) -> None:
        self._checkout = checkout
        self._environ = {**os.environ, "SLUICE_REDIS_URL": valkey_url, "SLUICE_HOME": str(home)}

    async def __call__(self, *words: str) -> tuple[int, str, str]:
        done = await asyncio.to_thread(run_module, "services.cli", *words, cwd=self._checkout, env=self._environ)
        return done.returncode, done.stdout, done.stderr

    async def json(self, *words: str) -> Any:
        code, out, err = await self(*words, "--json")
        assert code == 0, err
        return json.loads(out)


@pytest.fixture
def commands(checkout: Path, valkey_url: str, tmp_path: Path) -> Commands:
    return Commands(checkout, valkey_url, tmp_path)


async def test_send_waits_for_the_outcome_and_list_and_show_tell_of_it(resumer: Desk, commands: Commands) -> None:
    key = new_key()
    run_id = await resumer.park(key)
    sent = await commands.json("signals", "send", "--key", key, "--input", '{"n": 1}', "--by", "ann", "--wait", "30")
    assert (sent["outcome"], sent["by"], sent["runs"][0]["run_id"]) == ("applied", "ann", run_id)
    assert await resumer.answer(run_id) == {"n": 1}
    listed = await commands.json("signals", "list", "--run", run_id)
    assert [one["id"] for one in listed] == [sent["id"]]
    assert [one["id"] for one in await commands.json("signals", "list", "--key", key, "--since", "1h")] == [sent["id"]]
    assert await commands.json("signals", "list", "--key", key, "--outcome", "buffered") == []
    code, _, err = await commands("signals", "list", "--outcome", "bufferd")
    assert (code, "is not one of 'received', 'applied', 'buffered'" in err) == (2, True)
    shown = await commands.json("signals", "show", sent["id"][:13])
    assert shown["id"] == sent["id"]
    assert shown["input"] == {"n": 1}
    assert [line["status"] for line in shown["log"]] == ["received", "applied"]


async def test_what_was_not_applied_exits_1_with_a_sentence(resumer: Desk, commands: Commands) -> None:
    unknown = str(uuid.uuid4())
    code, out, err = await commands("signals", "send", "--run", unknown, "--wait", "30")
    assert code == 1
    assert "unknown-run" in out
    assert f"Prefect knows no flow run {unknown}" in err
    form = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    run_id = await resumer.park(new_key(), schema=form)
    code, _, err = await commands("runs", "resume", run_id, "--input", '{"ok": "perhaps"}', "--wait", "30")
    assert code == 1
    assert "not true or false" in err
    assert (await commands("signals", "show", "nothing"))[0] == 1


async def test_misuse_exits_2(commands: Commands, submission: Desk) -> None:
    assert (await commands("signals", "send"))[0] == 2
    assert (await commands("signals", "send", "--key", "k", "--input", "[1]"))[0] == 2


async def test_a_signal_that_nobody_looks_at_is_said_to_be_recorded(submission: Desk, commands: Commands) -> None:
    code, _, err = await commands("signals", "send", "--key", new_key(), "--wait", "0.3")
    assert code == 1
    assert "recorded" in err
