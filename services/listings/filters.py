"""The filters of listings. Each field is an option of a command and a parameter of the API's query of the same name."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import Field

from config.health import is_canary
from events.errors import ConfigError
from events.glob import glob_problem
from events.identity import id_of
from services.store.dead_letters import LetterQuery
from services.store.events.history import Query
from services.store.signals.signal_record import SignalRecord

if TYPE_CHECKING:
    from services.prefect_api.run_listing import RunQuery

_FIRST_SECOND: Final = 946_684_800
"""The year 2000; nothing here is older."""
LAST_SECOND: Final = 253_402_300_799

LetterKind = Literal["message", "event", "signal", "job", "stored"]
SignalStatus = Literal[
    "received", "applied", "buffered", "duplicate", "late", "rejected", "expired", "unknown-run", "unanswered"
]


@dataclass(frozen=True, kw_only=True)
class Period:
    """A time from ``since`` on, up to ``until``, which is not included; a time without a zone is UTC."""

    since: Annotated[datetime | None, Field(description="Not before this time")] = None
    until: Annotated[datetime | None, Field(description="Before this time")] = None

    def in_seconds(self) -> tuple[float | None, float | None]:
        """Both in seconds since the epoch; raises `ConfigError` for a time before 2000 or beyond the year 9999."""
        return _seconds(self.since), _seconds(self.until)


@dataclass(frozen=True, kw_only=True)
class EventAttributes(Period):
    """A filter of events by their attributes and their outcome."""

    type: Annotated[str | None, Field(max_length=512, description="Only this type; a glob")] = None
    source: Annotated[str | None, Field(max_length=512, description="Only from this source; a glob")] = None
    subject: Annotated[str | None, Field(max_length=512, description="Only with this subject; a glob")] = None
    unmatched: Annotated[bool, Field(description="Only events that no rule matched")] = False
    failed: Annotated[bool, Field(description="Only events with a failed run or a dead letter")] = False

    def query(self, *, rule: str | None = None, before: str | None = None) -> Query:
        """Return the query of the history; raises `ConfigError` for an invalid glob or time."""
        _check_globs(type=self.type, source=self.source, subject=self.subject)
        since, until = self.in_seconds()
        return Query(
            type=self.type,
            source=self.source,
            subject=self.subject,
            rule=rule,
            unmatched=self.unmatched,
            failed=self.failed,
            since=since,
            until=until,
            before=before,
        )


@dataclass(frozen=True, kw_only=True)
class EventFilter(EventAttributes):
    """A filter of events that also takes a rule that matched them."""

    rule: Annotated[str | None, Field(max_length=256, description="Only events that this rule matched")] = None


@dataclass(frozen=True, kw_only=True)
class RunAttributes(Period):
    """A filter of flow runs; the period is that of their scheduled start."""

    deployment: Annotated[
        str | None, Field(max_length=400, description="Only runs of this flow, or flow/deployment")
    ] = None
    rule: Annotated[str | None, Field(max_length=256, description="Only runs that this rule started")] = None


@dataclass(frozen=True, kw_only=True)
class RunFilter(RunAttributes):
    """A filter of flow runs that also takes lists, which FastAPI would read from the request's body."""

    state: Annotated[list[str] | None, Field(description="Only in this state; may be given again")] = None
    tag: Annotated[list[str] | None, Field(description="Only with this tag; may be given again")] = None

    def query(self) -> RunQuery:
        """Return the query of Prefect; raises `ConfigError` for an invalid time."""
        from services.prefect_api.run_listing import RunQuery

        since, until = (None if at is None else datetime.fromtimestamp(at, UTC) for at in self.in_seconds())
        return RunQuery(
            deployment=self.deployment,
            states=tuple(self.state or ()),
            tags=(*(self.tag or ()), *([f"rule:{self.rule}"] if self.rule else ())),
            since=since,
            until=until,
        )


@dataclass(frozen=True, kw_only=True)
class SignalFilter(Period):
    """A filter of signals; the period is that of their arrival. Those of the canary are found only by their key."""

    outcome: Annotated[SignalStatus | None, Field(description="Only those with this outcome, such as buffered")] = None
    run: Annotated[str | None, Field(max_length=36, description="Only those of this run")] = None
    key: Annotated[str | None, Field(max_length=200, description="Only those for this key")] = None
    event: Annotated[str | None, Field(max_length=256, description="Only those that the event with this id led to")] = (
        None
    )

    def matches(self, record: SignalRecord) -> bool:
        """Whether the signal matches, whichever run it concerned."""
        since, until = self.in_seconds()
        at, identity = record.received.timestamp(), record.signal.event_identity
        return (
            self.outcome in {None, record.status}
            and self.key in {None, record.signal.key}
            and self.event in {None, id_of(identity) if identity else ""}
            and (since is None or at >= since)
            and (until is None or at < until)
            and (self.key is not None or not is_canary(record.signal.id))
        )


@dataclass(frozen=True, kw_only=True)
class LetterFilter(Period):
    """A filter of dead letters; the period is that of their last failure."""

    code: Annotated[str | None, Field(max_length=256, description="Only with this code")] = None
    rule: Annotated[str | None, Field(max_length=256, description="Only of this rule")] = None
    kind: Annotated[LetterKind | None, Field(description="Only of this kind")] = None
    source: Annotated[str | None, Field(max_length=512, description="Only from this source; a glob")] = None
    event: Annotated[str | None, Field(max_length=256, description="Only of the event with this id")] = None

    def query(self, *, before: tuple[int, str] | None = None) -> LetterQuery:
        """Return the query of the store; raises `ConfigError` for an invalid glob or time."""
        _check_globs(source=self.source)
        since, until = self.in_seconds()
        return LetterQuery(
            kind=self.kind,
            code=self.code,
            rule=self.rule,
            source=self.source,
            event_id=self.event,
            since=since,
            until=until,
            before=before,
        )


def _seconds(moment: datetime | None) -> float | None:
    if moment is None:
        return None
    found = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not _FIRST_SECOND <= found <= LAST_SECOND:
        raise ConfigError(f"{moment.isoformat()} is no time that anything could have happened at")
    return found


def _check_globs(**globs: str | None) -> None:
    for name, glob in globs.items():
        if glob is not None and (problem := glob_problem(glob)):
            raise ConfigError(f"{name}: {problem}")
