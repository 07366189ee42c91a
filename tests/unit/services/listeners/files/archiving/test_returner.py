"""Files come back from where they were archived when a replay asks for them, or it is told why not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from events.errors import Refused
from services.store.files.ledger_rows import State
from tests.support.sources import running
from tests.unit.services.listeners.files.watched import Watched

Make = Callable[..., Watched]


async def archived(watch: Watched, name: str | bytes = "a.csv", *, ok: bool = True) -> str:
    """The identity of the event of a file that was archived."""
    await watch.arrivals().consider([watch.put(name)])
    event = (await watch.announced())[-1]
    await watch.finish(event.id, ok=ok)
    await watch.archive()
    return event.identity


async def asked(watch: Watched, identity: str) -> bool:
    async with running(watch.archiver()):
        return await asyncio.wait_for(watch.returns.bring_back(identity), 30)


@pytest.mark.parametrize("ok", [True, False])
async def test_a_file_comes_back_without_the_note_beside_it(watched: Make, ok: bool) -> None:
    watch = watched()
    identity = await archived(watch, "deep/a.csv", ok=ok)
    assert await asked(watch, identity)
    assert watch.tree() == {"deep/a.csv": "x"}
    assert (await watch.row("deep/a.csv")).state is State.SENT
    numbers = await watch.ledger.numbers("inbox")
    assert (numbers["done" if ok else "failed"], numbers["in_flight"]) == (0, 1)
    assert await watch.returns.wanted("inbox") == []


async def test_a_file_whose_name_is_no_text_can_be_opened_again(watched: Make) -> None:
    watch = watched()
    identity = await archived(watch, b"caf\xe9.csv")
    path = (await watch.announced())[-1].data["path"]
    assert await asked(watch, identity)
    with open(path) as file:
        assert file.read() == "x"


async def test_a_file_that_was_changed_where_it_lies_does_not_come_back(watched: Make) -> None:
    watch = watched()
    identity = await archived(watch)
    watch.put("done/a.csv", "mended")
    with pytest.raises(Refused, match="has changed since it was archived") as refused:
        await asked(watch, identity)
    assert refused.value.code == "file-not-returned"
    assert watch.tree() == {"done/a.csv": "mended"}
    assert (await watch.row("a.csv")).state is State.CLOSED
    assert (await watch.ledger.numbers("inbox"))["in_flight"] == 0


async def test_a_file_does_not_take_the_place_of_a_later_one(watched: Make) -> None:
    watch = watched()
    identity = await archived(watch)
    later = watch.put("a.csv", "later")
    assert await watch.arrivals().consider([later]) == 1
    with pytest.raises(Refused, match=r"another file was announced as a\.csv"):
        await asked(watch, identity)
    assert watch.tree() == {"a.csv": "later", "done/a.csv": "x"}


async def test_a_file_that_was_deleted_after_its_run_is_told_to_be_gone(watched: Make) -> None:
    watch = watched(on_success="delete")
    identity = await archived(watch)
    with pytest.raises(Refused, match="was deleted after its run"):
        await asked(watch, identity)
