"""Dead letters by the command line: shown, edited, replayed, discarded."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import pytest

from events.dead_letter import DeadLetter
from events.identity import identity_of
from services.cli import dead, events
from services.prefect_api.client import PrefectApi
from services.store.dead_letters import DeadLetters
from tests.integration.delivery.commands import call, emptied, have_runs, letters, read_json
from tests.integration.delivery.world import RULE, World, deployment, order, runs_of
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("addressed")


async def test_a_dead_letter_is_shown_edited_and_replayed(
    world: World, prefect: PrefectApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "ada")
    name = await deployment(prefect)
    world.use({**RULE, "run": name})
    async with world.running("router", "dispatcher"):
        await world.publish(order("many", id_="bad"), order(3, id_="good"))
        (row,) = await eventually(lambda: read_json(dead.app, "list"))
        assert (row["kind"], row["code"], row["rule"], row["event_id"]) == ("event", "parameters-refused", "pay", "bad")
        assert await read_json(dead.app, "list", "--event", "good") == []
        assert "'many' is not of type 'integer'" in row["reason"]
        shown = await read_json(dead.app, "show", row["id"][:8])
        assert shown["id"] == row["id"]
        assert await read_json(dead.app, "list", "--until", "1h") == []
        assert (await call(dead.app, "list", "--kind", "massage")).exit_code == 2
        wrong = await call(dead.app, "list", "--rule", "paay")
        assert (wrong.exit_code, "has no such rule" in wrong.stderr) == (2, True)
        assert shown["content"]["data"] == {"amount": "many"}
        await read_json(dead.app, "replay", row["id"])
        (again,) = await eventually(lambda: read_json(dead.app, "list", "--rule", "pay"))
        assert again["attempts"] == 2
        assert again["first_failed"] == row["first_failed"]
        nonsense = await call(dead.app, "replay", row["id"], "--set", "nonsense")
        assert (nonsense.exit_code, "not of the form" in nonsense.stderr) == (2, True)
        nowhere = await call(dead.app, "replay", row["id"], "--set", "id.x=5", "--json")
        assert (nowhere.exit_code, json.loads(nowhere.stdout)["failed"][0]["code"]) == (1, "bad-edit")
        assert await read_json(dead.app, "list") != []
        await read_json(dead.app, "replay", row["id"], "--set", "data.amount=5")
        await eventually(lambda: have_runs(prefect, name, 2))
        await eventually(lambda: emptied(world))
    (change,) = (await read_json(events.app, "show", "bad"))["changes"]
    assert (change["path"], change["before"], change["after"]) == ("data.amount", '"many"', "5")
    assert (change["letter"], change["by"]) == (row["id"], "ada")
    assert 'data.amount: "many" -> 5, by ada' in (await call(events.app, "show", "bad")).stdout
    assert await read_json(dead.app, "list") == []
    assert sorted(run["parameters"]["amount"] for run in await runs_of(prefect, name)) == [3, 5]
    assert {run["idempotency_key"] for run in await runs_of(prefect, name)} == {
        identity_of("shop", id_) + ":pay" for id_ in ("bad", "good")
    }


async def test_letters_are_discarded_by_id_filter_or_all_at_once(world: World) -> None:
    world.use({**RULE, "run": "a/b", "parameters": {"amount": "{{ event.data.missing.deep }}"}})
    async with world.running("router"):
        await world.publish(*(order(1, id_=f"e{n}") for n in range(3)))
        rows = await eventually(lambda: letters(3))
    assert {row["code"] for row in rows} == {"template"}
    assert (await read_json(dead.app, "discard", rows[0]["id"])) == {"discarded": 1}
    assert len(await read_json(dead.app, "discard", "--code", "template", "--dry-run")) == 2
    assert (await read_json(dead.app, "discard", "--code", "template")) == {"discarded": 2}
    assert (await call(dead.app, "discard")).exit_code == 2
    assert (await call(dead.app, "show", "nothing")).exit_code == 1
    await asyncio.gather(*(DeadLetters(world.redis).add(_a_letter(f"abcd{n}")) for n in range(2)))
    several = await call(dead.app, "discard", "abcd")
    assert (several.exit_code, "give more of the id, one of abcd0, abcd1" in several.stderr) == (1, True)
    assert (await read_json(dead.app, "discard", "abcd0")) == {"discarded": 1}


def _a_letter(id_: str) -> DeadLetter:
    now = datetime.now(UTC)
    return DeadLetter(
        id=id_, kind="message", code="x", reason="x", source="x", raw=b"", first_failed=now, last_failed=now
    )
