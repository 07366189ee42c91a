"""What is decided on one event: runs, signals, parked events, dead letters; and that no event stops those behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from config.settings import JournalSettings
from events.errors import RejectedEvent, TransientError
from events.event import Event
from events.rule import Rule, RuleSet, Verdict, evaluate
from events.rule_model import RuleSpec
from events.signal import ResumeSignal
from services.routing.decisions import MANY_DELIVERIES, MOST_DELIVERIES, Decision, EventDecider
from services.store.connection import AsyncRedis
from services.store.dead_letters import DeadLetters, LetterQuery
from services.store.event_transitions import DONE_VALUE, OPEN_VALUE
from services.store.events.event_history import unpacked
from services.store.events.journal import Journal, JournalEntry
from services.store.rules.parked_events import parked_token
from tests.unit.services.store.making import RECEIVED, event

PAY = {"name": "pay", "on": "order.*", "run": "pay/d", "parameters": {"amount": "{{ event.data.amount }}"}}
BROKEN = {"name": "broken", "on": "*", "run": "pay/d", "parameters": {"amount": "{{ event.data.nothing.there }}"}}
RESUME = {"name": "approve", "on": "order.*", "resume": {"key": "order-{{ event.id }}", "input": {"ok": True}}}


class Deciding:
    """A decider with rules in hand, and what it sent."""

    def __init__(self, redis: AsyncRedis) -> None:
        self.dead = DeadLetters(redis)
        self.signals: list[ResumeSignal] = []
        self.refuses: RejectedEvent | TransientError | None = None
        self.poison: str | None = None
        self.use()
        self.decider = EventDecider(
            judge=self._judge,
            dead_letters=self.dead,
            submit_signal=self._submit,
            windows=None,
            poison_check=self._check,
        )

    def use(self, *specs: dict[str, Any], version: str = "v1") -> None:
        """Put these rules in force."""
        self.rules = RuleSet(Rule(RuleSpec.model_validate(spec)) for spec in specs)
        self.version = version

    async def on(self, one: Event, **fields: Any) -> Decision:
        """The decision on an event."""
        return await self.decider.decide(JournalEntry(position="1-0", event=one, received=RECEIVED, **fields))

    async def letters(self) -> list[tuple[str, str | None]]:
        """The code and the rule of each letter."""
        return sorted((one.code, one.rule) for one in await self.dead.search(LetterQuery(), limit=99))

    def _judge(self, one: Event) -> tuple[Sequence[Verdict], str]:
        return evaluate(self.rules, one), self.version

    async def _submit(self, signal: ResumeSignal) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.signals.append(signal)

    async def _check(self, _: Event) -> str | None:
        return self.poison


@pytest.fixture
def deciding(redis: AsyncRedis) -> Deciding:
    return Deciding(redis)


async def test_a_matched_rule_becomes_a_run_and_another_one_none(deciding: Deciding) -> None:
    deciding.use(PAY, {"name": "other", "on": "bank.*", "run": "x/d"})
    decision = await deciding.on(event(amount=5))
    (run,) = decision.dispatches
    assert (run.action.rule, run.action.deployment, run.action.parameters) == ("pay", "pay/d", {"amount": 5})
    assert run.positions == ("1-0",)
    assert [one.matched for one in decision.verdicts] == [True, False]
    assert (decision.effects, await deciding.letters()) == ([], [])


async def test_a_signal_is_sent_before_the_entry_is_acknowledged(deciding: Deciding) -> None:
    deciding.use(RESUME)
    decision = await deciding.on(event())
    (signal,) = deciding.signals
    assert (signal.key, signal.input) == ("order-e1", {"ok": True})
    assert decision.signals == [signal.id]
    again = await deciding.on(event())
    assert again.signals == [signal.id], "a repetition sends the same signal, which the store takes once"


async def test_a_signal_that_can_never_be_taken_is_a_dead_letter(deciding: Deciding) -> None:
    deciding.use(RESUME, PAY)
    deciding.refuses = RejectedEvent("hydration", "no")
    decision = await deciding.on(event(amount=5))
    assert await deciding.letters() == [("hydration", "approve")]
    assert [token for token, _ in decision.effects] == ["approve!"]
    assert len(decision.dispatches) == 1, "the other rule has its run"


async def test_while_signals_cannot_be_stored_the_decision_is_made_anew(deciding: Deciding) -> None:
    deciding.use(RESUME)
    deciding.refuses = TransientError("away")
    with pytest.raises(TransientError):
        await deciding.on(event())
    assert await deciding.letters() == []
    deciding.refuses = None
    assert (await deciding.on(event())).signals == [deciding.signals[0].id]


async def test_a_rule_that_cannot_be_rendered_costs_its_own_event_only(deciding: Deciding) -> None:
    deciding.use(BROKEN, PAY)
    decision = await deciding.on(event(amount=5))
    assert [one.action.rule for one in decision.dispatches] == ["pay"]
    ((code, rule),) = await deciding.letters()
    assert rule == "broken"
    ((token, value),) = decision.effects
    assert token == "broken!"
    assert value.startswith("!")
    assert unpacked(decision.lines[0])[4] == code
    assert len(decision.letters) == 1


async def test_rules_that_raise_cost_the_event_and_not_those_behind_it(deciding: Deciding) -> None:
    decider = deciding.decider
    decider._judge = lambda _: (_ for _ in ()).throw(RuntimeError("a fault in a rule"))
    decision = await deciding.on(event("a"))
    assert decision.verdicts == ()
    assert await deciding.letters() == [("rules-failed", None)]
    assert "a fault in a rule" in (await deciding.dead.search(LetterQuery(), limit=1))[0].reason
    decider._judge = deciding._judge
    deciding.use(PAY)
    assert len((await deciding.on(event("b", amount=1))).dispatches) == 1


@pytest.mark.parametrize(
    ("deliveries", "poison", "buried"),
    [
        (1, "a check would say so", False),
        (MANY_DELIVERIES - 1, "a check would say so", False),
        (MANY_DELIVERIES, None, False),
        (MANY_DELIVERIES, "it ended by signal 9", True),
        (MOST_DELIVERIES - 1, None, False),
        (MOST_DELIVERIES, None, True),
    ],
)
async def test_an_event_that_ends_its_routers_is_buried(
    deciding: Deciding, deliveries: int, poison: str | None, buried: bool
) -> None:
    deciding.use(PAY)
    deciding.poison = poison
    decision = await deciding.on(event(amount=1), deliveries=deliveries)
    assert await deciding.letters() == ([("ended-routers", None)] if buried else [])
    assert len(decision.dispatches) == (0 if buried else 1)


async def test_a_replay_for_some_rules_asks_no_other_one(deciding: Deciding) -> None:
    deciding.use(PAY, {**PAY, "name": "ship"})
    decision = await deciding.on(event(amount=1), replay=True, only=("ship",))
    assert [one.rule for one in decision.verdicts] == ["ship"]
    assert [one.action.rule for one in decision.dispatches] == ["ship"]
    routed = decision.routed(b"verdicts")
    assert routed.quiet
    assert unpacked(routed.lines[0])[3] == "judged again by ship to fill gaps"


async def test_a_replay_takes_back_the_letter_and_the_parked_event_of_its_rule(deciding: Deciding) -> None:
    deciding.use(PAY)
    decision = await deciding.on(event(amount=1), replay=True, only=("pay",))
    assert decision.effects == [(parked_token("pay"), DONE_VALUE), ("pay!", DONE_VALUE)]


async def test_a_rerun_has_effects_under_keys_of_its_own(deciding: Deciding) -> None:
    deciding.use(PAY, RESUME)
    first = await deciding.on(event(amount=1))
    again = await deciding.on(event(amount=1), replay=True, salt="s1")
    assert first.dispatches[0].action.idempotency_key != again.dispatches[0].action.idempotency_key
    assert first.dispatches[0].token != again.dispatches[0].token
    assert len({signal.id for signal in deciding.signals}) == 2
    assert unpacked(again.routed(b"v").lines[0])[3] == "judged again for a rerun"


async def test_an_event_that_is_no_replay_says_nothing_of_one(deciding: Deciding) -> None:
    deciding.use(PAY)
    routed = (await deciding.on(event(amount=1))).routed(b"verdicts")
    assert (routed.lines, routed.matched, routed.quiet, routed.salt) == ([b"verdicts"], ["pay"], False, None)


async def _until_parked(deciding: Deciding) -> int:
    for number in range(50):
        decision = await deciding.on(event(f"e{number}"))
        if decision.parked:
            assert decision.effects == [(parked_token("broken"), OPEN_VALUE)]
            assert "parked until the rule works" in decision.notes["broken"]
            return number
    raise AssertionError("nothing was parked")


async def test_a_rule_that_fails_on_most_events_parks_them_instead(deciding: Deciding) -> None:
    deciding.use(BROKEN)
    count = await _until_parked(deciding)
    assert len(await deciding.letters()) == count < 20
    assert list(deciding.decider.reasons) == ["broken"]


async def test_parked_events_are_released_when_their_rule_works_again(deciding: Deciding) -> None:
    deciding.use(BROKEN)
    await _until_parked(deciding)
    deciding.decider.released = set()
    decision = await deciding.on(event("good", nothing={"there": 5}))
    assert len(decision.dispatches) == 1
    assert deciding.decider.released == {"broken"}
    assert deciding.decider.reasons == {}


async def test_when_the_rules_change_all_parked_events_may_go_on(deciding: Deciding) -> None:
    deciding.use(BROKEN)
    await _until_parked(deciding)
    deciding.decider.released = set()
    deciding.use(BROKEN, version="v2")
    decision = await deciding.on(event("next"))
    assert deciding.decider.released is None
    assert decision.parked == [], "the new rules begin with letters"
    assert deciding.decider.reasons == {}


async def test_a_letter_counts_as_one_however_often_the_entry_is_repeated(deciding: Deciding) -> None:
    deciding.use(BROKEN)
    for _ in range(3):
        await deciding.on(event())
    (letter,) = await deciding.dead.search(LetterQuery(), limit=9)
    assert letter.attempts == 3


async def test_a_decision_is_for_the_entry_that_it_was_made_on(redis: AsyncRedis, deciding: Deciding) -> None:
    deciding.use(PAY)
    journal = Journal(redis, JournalSettings())
    await journal.append([event("a", amount=1), event("b", amount=2)], received=RECEIVED)
    for entry in await journal.read():
        assert isinstance(entry, JournalEntry)
        decision = await deciding.decider.decide(replace(entry, deliveries=1))
        assert decision.routed(b"").identity == entry.event.identity
        assert decision.judged.position == entry.position
        assert decision.dispatches[0].positions == (entry.position,)
