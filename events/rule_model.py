"""What a rule says, as it stands in the project file: frozen models, and the JSON Schema that editors complete from."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from typing_extensions import override

PARTS_ONLY: Final = "parts only"
"""Validation context: look at each key, not at how they go together (a rule known to be wrong is looked through)."""

LONGEST_WINDOW_SECONDS: Final = 30 * 86_400
_RATE: Final = re.compile(r"(\d+) */ *(?:(\d+) *)?(second|minute|hour|day)s?")
_UNIT_SECONDS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _number_or_template(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("write a number of seconds, or a template that gives one")  # noqa: TRY004 - as pydantic wants
    if isinstance(value, str) and "{{" not in value:
        raise ValueError("write a number of seconds without quotes, or a template that gives one")
    if not isinstance(value, str) and not 0 <= value <= LONGEST_WINDOW_SECONDS:
        raise ValueError(f"write between 0 and {LONGEST_WINDOW_SECONDS} seconds")
    return value


def _mapping_or_template(value: Any) -> Any:
    if isinstance(value, dict) or (isinstance(value, str) and value.strip().startswith("{{")):
        return value
    raise ValueError('write a mapping, or one template that gives a mapping ("{{ event.data }}")')


Globs = Annotated[
    tuple[str, ...],
    BeforeValidator(_one_or_many),
    Field(min_length=1),
    WithJsonSchema(
        {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]},
        mode="validation",
    ),
]
"""One glob or a list of which any may match; ``*`` and ``?`` cross dots and slashes."""

Flag = Annotated[bool, Field(strict=True)]
Seconds = Annotated[float, Field(gt=0, le=LONGEST_WINDOW_SECONDS)]
TemplatedSeconds = Annotated[
    Any,
    BeforeValidator(_number_or_template),
    WithJsonSchema({"oneOf": [{"type": "number", "minimum": 0}, {"type": "string"}]}, mode="validation"),
]
TemplatedMapping = Annotated[
    Any,
    BeforeValidator(_mapping_or_template),
    WithJsonSchema({"oneOf": [{"type": "object"}, {"type": "string"}]}, mode="validation"),
]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=8192)]


class RulePart(BaseModel):
    """A part of the project file: nothing unknown in it, nothing changed after it was read."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ResumeSpec(RulePart):
    """Resume (or reject) the runs that wait: by correlation `key`, or one run by `run_id`. All texts are templates."""

    key: Text | None = None
    run_id: Text | None = None
    input: TemplatedMapping = Field(default_factory=dict)
    by: Text | None = None
    ttl_seconds: TemplatedSeconds | None = None
    action: Literal["resume", "reject"] = "resume"
    reason: Text | None = None
    deliver: Literal["all", "one"] = "all"
    buffer: bool = False

    @model_validator(mode="after")
    def _addressed(self) -> Self:
        if (self.key is None) == (self.run_id is None):
            raise ValueError("name exactly one of `key` and `run_id`: whom to resume")
        return self


class ActionSpec(RulePart):
    """One thing to do: `run` a deployment, or `resume` a waiting run."""

    run: Annotated[str, StringConstraints(pattern=r"^[^/{}]+/[^/{}]+$")] | None = None
    """The deployment, `flow-name/deployment-name`. Never a template: an event does not choose what runs."""
    resume: ResumeSpec | None = None
    parameters: TemplatedMapping = Field(default_factory=dict)
    run_name: Text | None = None
    tags: tuple[Text, ...] = ()
    work_queue: Text | None = None
    job_variables: TemplatedMapping = Field(default_factory=dict)
    after_seconds: TemplatedSeconds | None = None
    """Schedule the run that many seconds from when the rule matched."""
    at: Text | None = None
    """Schedule the run for this ISO 8601 time with its zone; usually a template."""

    @model_validator(mode="after")
    def _whole(self, info: ValidationInfo) -> Self:
        if info.context != PARTS_ONLY:
            self._check_action()
        return self

    def _check_action(self) -> None:
        if (self.run is None) == (self.resume is None):
            raise ValueError("name exactly one of `run` and `resume`: what to do")
        if self.after_seconds is not None and self.at is not None:
            raise ValueError("name only one of `after_seconds` and `at`")
        if self.run is None:
            misplaced = sorted(RUN_KEYS & self.model_fields_set)
            if misplaced:
                raise ValueError(f"`{misplaced[0]}` belongs to `run`, not to `resume`")


RUN_KEYS: Final = frozenset(ActionSpec.model_fields) - {"run", "resume"}


class Batch(RulePart):
    """One run for many events, which templates see as `events`, oldest first."""

    max_events: Annotated[int, Field(ge=1, le=10_000)]
    max_wait_seconds: Seconds
    key: Text | None = None
    """A template: events with different keys are gathered apart."""


class Debounce(RulePart):
    """One run when a key has been quiet: `event` is the latest of its events, `events` are all of them."""

    key: Text | None = None
    wait_seconds: Seconds
    max_wait_seconds: Seconds | None = None
    """At the latest so long after the first event, even if the key never falls quiet."""
    max_events: Annotated[int, Field(ge=1, le=10_000)] = 10_000


class Throttle(RulePart):
    """At most `max_events` of a key within `per_seconds`; what is above is dropped, counted and listed."""

    key: Text | None = None
    max_events: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    per_seconds: Seconds


class Correlate(RulePart):
    """One run when an event of each kind in `all` has come with one key; templates see them as `joined.KIND`."""

    all: Annotated[dict[Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")], Globs], Field(min_length=2)]
    """Names of the kinds, each with a glob on the type."""
    key: Text
    within_seconds: Seconds
    """Counted from the first event of a key; what is left over then becomes dead letters."""


class Rate(RulePart):
    """At most ``count`` runs within ``per_seconds``; what is above waits."""

    count: Annotated[int, Field(ge=1)]
    per_seconds: Seconds


def _rate(value: Any) -> Any:
    if isinstance(value, Rate):
        return value
    match = _RATE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or int(match[1]) < 1 or match[2] == "0":
        raise ValueError("write a rate such as 10/minute, 5/second or 100/2 hours")
    return Rate(count=int(match[1]), per_seconds=int(match[2] or 1) * _UNIT_SECONDS[match[3]])


class ExpectedRun(RulePart):
    """A run that a test expects: only what is named is compared."""

    run: str
    parameters: dict[str, JsonValue] | None = None
    run_name: str | None = None
    tags: tuple[str, ...] | None = None
    work_queue: str | None = None
    job_variables: dict[str, JsonValue] | None = None


class ExpectedResume(RulePart):
    """A resume that a test expects: only what is named is compared."""

    key: str | None = None
    run_id: str | None = None
    input: dict[str, JsonValue] | None = None
    by: str | None = None
    action: Literal["resume", "reject"] | None = None


class RuleTest(RulePart):
    """An event, or several for a rule that gathers them, and what the rule must make of it."""

    name: str | None = None
    event: dict[str, Any] | None = None
    """CloudEvents attributes; those left out are filled in, the type with the rule's own where it is no glob."""
    events: tuple[dict[str, Any], ...] = ()
    runs: tuple[ExpectedRun, ...] | None = None
    resumes: tuple[ExpectedResume, ...] | None = None
    failed: Literal["type", "source", "subject", "when"] | None = None
    """The criterion that must have failed."""
    error: str | None = None
    """A text that must stand in the error of a template that cannot be rendered."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if (self.event is None) == (not self.events):
            raise ValueError("name `event`, or `events` for a rule that gathers several")
        if self.runs is None and self.resumes is None and self.failed is None and self.error is None:
            raise ValueError("name what must come of it: `runs`, `resumes`, `failed` or `error` (`runs: []` for none)")
        return self


class RuleSpec(ActionSpec):
    """One rule: which events it is for, and what it does with them."""

    name: Name
    description: str | None = None
    enabled: Flag = True
    on: Globs | None = None
    """Globs on the event's type."""
    source: Globs | None = None
    subject: Globs | None = None
    when: Text | None = None
    """A Jinja expression over `event`; the rule matches where it holds. A missing key means that it does not."""
    do: Annotated[tuple[ActionSpec, ...], Field(max_length=20)] = ()
    """Several actions, instead of `run` or `resume` in the rule itself."""
    stop: Flag = False
    """Where this rule matches, the rules below it are not asked."""

    batch: Batch | None = None
    debounce: Debounce | None = None
    correlate: Correlate | None = None
    throttle: Throttle | None = None
    dedupe_key: Text | None = None
    """A template: of several events with one key within `dedupe_seconds`, only the first counts."""
    dedupe_seconds: Seconds = 86_400
    max_active_runs: Annotated[int, Field(ge=1)] | None = None
    """While so many runs of this rule are active, its events wait."""
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    """Higher is dispatched first."""
    rate: Annotated[
        Rate | None, BeforeValidator(_rate), WithJsonSchema({"type": "string", "examples": ["10/minute"]})
    ] = None
    tests: tuple[RuleTest, ...] = ()

    @override
    def _check_action(self) -> None:
        """Refuse keys of a rule that contradict each other or need another; raises `ValueError` with what to change."""
        own = sorted({"run", "resume", *RUN_KEYS} & self.model_fields_set)
        if self.do and own:
            raise ValueError(f"`{own[0]}` stands beside `do`: move it into one of the actions in `do`")
        if not self.do:
            super()._check_action()
        if self.correlate is not None and self.on is not None:
            raise ValueError("`correlate` names the types itself in `all`: leave out `on`")
        if self.correlate is None and self.on is None:
            raise ValueError("name `on`: a glob on the event's type, '*' for every event")
        gathering = [name for name in ("batch", "debounce", "correlate") if getattr(self, name) is not None]
        if len(gathering) > 1:
            raise ValueError(
                f"only one of `batch`, `debounce` and `correlate` may be used, not {' and '.join(gathering)}"
            )
        if "dedupe_seconds" in self.model_fields_set and self.dedupe_key is None:
            raise ValueError("`dedupe_seconds` belongs to a `dedupe_key`")

    @property
    def actions(self) -> tuple[ActionSpec, ...]:
        """What the rule does, in order."""
        return self.do or (self,)
