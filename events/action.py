"""The actions of a rule: start a deployment's flow run, or resume a waiting one."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue

# A run's parameter schema may allow anything, so the names are limited here, too, not only in Prefect.
RUN_NAME_LIMIT: Final = 200


Identities = Annotated[tuple[str, ...], Field(min_length=1)]
"""The identities of the events behind an action."""


class RunDeployment(BaseModel):
    """Start one flow run of ``deployment`` (``flow-name/deployment-name``)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["run"] = "run"
    rule: str
    identities: Identities
    deployment: str
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    run_name: str | None = None
    tags: tuple[str, ...] = ()
    work_queue: str | None = None
    job_variables: dict[str, JsonValue] = Field(default_factory=dict)
    scheduled_seconds: float = 0
    """Delay of the start after the dispatch; 0 is at once."""
    scheduled_at: AwareDatetime | None = None
    """Start at this time instead."""
    ordinal: int = 0
    """Index of the action in the rule, from 0."""
    salt: str | None = None
    """Set by a rerun, so that it starts a second run on purpose."""

    @property
    def idempotency_key(self) -> str:
        """``identity:rule name`` for the first action of a rule: Prefect creates one run for it, ever."""
        return idempotency_key(self.identities[0], self.rule, self.ordinal, self.salt)

    def planned_after(self, created: float) -> float | None:
        """Return when a run ``created`` at that time (seconds since the epoch) is to start, if that is later."""
        planned = created + self.scheduled_seconds if self.scheduled_at is None else self.scheduled_at.timestamp()
        return planned if planned > created else None


class ResumeRun(BaseModel):
    """Resume the runs that wait for ``key``, or the run ``run_id``, with ``input``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["resume"] = "resume"
    rule: str
    identities: Identities
    key: str | None = None
    run_id: str | None = None
    input: dict[str, JsonValue] = Field(default_factory=dict)
    buffer: bool = False
    action: Literal["resume", "reject"] = "resume"
    reason: str | None = None
    by: str | None = None
    ttl_seconds: float | None = None
    deliver: Literal["all", "one"] = "all"
    ordinal: int = 0
    salt: str | None = None

    @property
    def idempotency_key(self) -> str:
        """The id of the signal that this action sends, by which it is sent only once."""
        return idempotency_key(self.identities[0], self.rule, self.ordinal, self.salt)


Action = Annotated[RunDeployment | ResumeRun, Field(discriminator="kind")]


def idempotency_key(identity: str, rule: str, ordinal: int = 0, salt: str | None = None) -> str:
    """Return the key under which an effect happens at most once.

    The bare form ``identity:rule`` belongs to the first action; later ones and reruns have a suffix. A rule's name has
    no ``:``, so the part before the last one is the identity.
    """
    suffix = f"#{ordinal}" if ordinal else ""
    rerun = f"~{salt}" if salt else ""
    return f"{identity}:{rule}{suffix}{rerun}"
