"""The ordinary path: an event in the journal becomes exactly one run, and its end is told."""

from __future__ import annotations

from typing import Any

from events.identity import identity_of
from services.prefect_api.client import PrefectApi
from services.store.events.history import Query
from tests.integration.delivery.world import RULE, World, deployment, made, order, orders, runs_of, set_state
from tests.support.waiting import eventually


async def test_an_event_becomes_one_run_with_its_parameters_and_tags(world: World, prefect: PrefectApi) -> None:
    name = await deployment(prefect)
    world.use({**RULE, "run": name, "run_name": "pay {{ event.data.amount }}", "tags": ["mine"]})
    event = order(42, id_="order-42")
    async with world.running():
        await world.publish(event)
        (run,) = await eventually(lambda: runs_of(prefect, name))
    assert run["parameters"] == {"amount": 42}
    assert run["name"] == "pay 42"
    assert set(run["tags"]) == {"sluice", "rule:pay", "source:shop", "event:order-42", "mine", "theirs"}
    assert run["idempotency_key"] == identity_of("shop", "order-42") + ":pay"
    assert run["state_type"] == "SCHEDULED"


async def test_a_repeated_id_starts_nothing(world: World, prefect: PrefectApi) -> None:
    name = await deployment(prefect)
    world.use({**RULE, "run": name})
    event = order(1)
    async with world.running("router", "dispatcher"):
        await world.publish(event, event)
        await world.publish(event)
        await world.publish(order(2))
        await eventually(lambda: made(prefect, name, 2))
    assert [run["parameters"]["amount"] for run in await runs_of(prefect, name)] == [1, 2]


async def test_many_events_are_created_in_order_in_bulk(world: World, prefect: PrefectApi) -> None:
    name = await deployment(prefect)
    world.use({**RULE, "run": name})
    await world.publish(*orders(150))
    async with world.running("router", "dispatcher"):
        await eventually(lambda: made(prefect, name, 150))
        await eventually(lambda: _drained(world))
    amounts = [run["parameters"]["amount"] for run in await runs_of(prefect, name)]
    assert amounts == list(range(150))


async def test_the_end_of_a_run_is_told_once_and_kept(world: World, prefect: PrefectApi) -> None:
    name = await deployment(prefect)
    world.use({**RULE, "run": name})
    event = order(1)
    async with world.running():
        await world.publish(event)
        (run,) = await eventually(lambda: runs_of(prefect, name))
        await eventually(lambda: world.runs.get(run["id"]))
        await set_state(prefect, run["id"], "RUNNING")
        await set_state(prefect, run["id"], "COMPLETED", message="all is well")
        (finished,) = await eventually(world.finished)
    assert finished["identity"] == event.identity
    assert finished["ok"] is True
    assert finished["matched"] == 1
    assert finished["dead"] == []
    assert finished["runs"] == [
        {
            "run_id": run["id"],
            "url": prefect.run_url(run["id"]),
            "rule": "pay",
            "deployment": name,
            "state_type": "COMPLETED",
            "state_name": "Completed",
            "message": "all is well",
        }
    ]
    history = await world.history.get(event.identity)
    assert history is not None
    assert history.event is not None
    assert history.event["data"] == {"amount": 1}
    assert history.matched == ["pay"]
    assert [state.type for state in history.runs[0].states] == ["RUNNING", "COMPLETED"]
    assert history.received is not None
    assert history.journalled is not None
    assert history.routed is not None
    assert await world.history.events_of_run(run["id"]) == [event.identity]
    assert await world.runs.open_count() == 0


async def test_an_event_that_no_rule_wants_is_finished_at_once(world: World) -> None:
    world.use({**RULE, "run": "no/matter"})
    event = order(1, type_="weather.changed")
    async with world.running("router"):
        await world.publish(event)
        (finished,) = await eventually(world.finished)
    assert finished == {"identity": event.identity, "ok": True, "matched": 0, "runs": [], "dead": []}
    history = await world.history.get(event.identity)
    assert history is not None
    assert history.verdicts[0].failed == "type"
    assert "weather.changed" in history.verdicts[0].detail


async def test_an_event_with_two_runs_is_finished_when_both_are_over(world: World, prefect: PrefectApi) -> None:
    first, second = await deployment(prefect), await deployment(prefect)
    world.use({**RULE, "run": first}, {**RULE, "name": "ship", "run": second})
    async with world.running():
        await world.publish(order(1))
        (pay,) = await eventually(lambda: runs_of(prefect, first))
        (ship,) = await eventually(lambda: runs_of(prefect, second))
        await eventually(lambda: world.runs.get(ship["id"]))
        await set_state(prefect, pay["id"], "COMPLETED")
        await eventually(lambda: _state(world, pay["id"], "COMPLETED"))
        assert await world.finished() == []
        await set_state(prefect, ship["id"], "FAILED", message="no lorry")
        (finished,) = await eventually(world.finished)
    assert finished["ok"] is False
    assert finished["matched"] == 2
    assert sorted(run["state_type"] for run in finished["runs"]) == ["COMPLETED", "FAILED"]


async def test_a_failed_run_that_is_retried_and_completes_is_a_success_in_the_history(
    world: World, prefect: PrefectApi
) -> None:
    name = await deployment(prefect)
    world.use({**RULE, "run": name})
    event = order(1)
    async with world.running():
        await world.publish(event)
        (run,) = await eventually(lambda: runs_of(prefect, name))
        await eventually(lambda: world.runs.get(run["id"]))
        await set_state(prefect, run["id"], "FAILED", message="not yet")
        await eventually(world.finished)
        assert [one.id for one in await world.history.search(Query(failed=True), limit=5)] == [event.id]
        await set_state(prefect, run["id"], "SCHEDULED", name="AwaitingRetry")
        await set_state(prefect, run["id"], "RUNNING")
        await set_state(prefect, run["id"], "COMPLETED")
        await eventually(lambda: _state(world, run["id"], "COMPLETED"))
    assert await world.history.search(Query(failed=True), limit=5) == []
    assert len(await world.finished()) == 1


async def test_the_run_links_back_to_its_event(world: World, prefect: PrefectApi) -> None:
    name = await deployment(prefect)
    world.use({**RULE, "run": name})
    event = order(1)
    async with world.running():
        await world.publish(event)
        (run,) = await eventually(lambda: runs_of(prefect, name))

        async def published() -> list[dict[str, Any]]:
            answer = await prefect.request(
                "POST",
                "/events/filter",
                json={
                    "filter": {
                        "event": {"name": ["sluice.event.dispatched"]},
                        "resource": {"id": [f"prefect.flow-run.{run['id']}"]},
                    }
                },
            )
            return list(answer["events"])

        (told,) = await eventually(published)
    assert told["payload"] == {
        "event_id": event.id,
        "event_ids": [event.id],
        "event_type": "order.placed",
        "event_source": "shop",
        "rule": "pay",
        "deployment": name,
    }
    related = {one["prefect.resource.role"]: one for one in told["related"]}
    assert related["deployment"]["prefect.resource.id"] == f"prefect.deployment.{run['deployment_id']}"
    assert related["flow"]["prefect.resource.id"] == f"prefect.flow.{run['flow_id']}"
    assert related["event"]["prefect.resource.id"] == f"sluice.event.{event.identity}"
    assert {related[role]["prefect.resource.name"] for role in ("rule", "source")} == {"rule pay", "source shop"}


async def test_a_resume_action_becomes_a_signal_with_the_actions_key(world: World) -> None:
    world.use(
        {"name": "go", "on": "order.*", "resume": {"key": "order-{{ event.data.amount }}", "input": {"ok": True}}}
    )
    async with world.running("router"):
        event = order(7, id_="e7")
        await world.publish(event)
        (finished,) = await eventually(world.finished)
    (signal,) = world.signals
    assert (signal.id, signal.event_identity) == (f"{event.identity}:go", event.identity)
    assert (signal.key, signal.input) == ("order-7", {"ok": True})
    assert finished["ok"] is True
    assert finished["matched"] == 1


async def _drained(world: World) -> bool:
    return not await world.queues.names()


async def _state(world: World, run_id: str, state: str) -> bool:
    run = await world.runs.get(run_id)
    return run is not None and run.state == state
