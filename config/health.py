"""Settings: limits beyond which an installation is not ready."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from config.settings_part import Positive, SettingsPart


class HealthSettings(SettingsPart):
    """From when on the installation is not ready although every role works."""

    journal_seconds: Positive = 60.0
    """How long an event may wait in the journal for a router."""
    dispatch_seconds: Positive = 300.0
    """How long a decided run may wait to be created in Prefect; a rule that its own limits keep back is exempt."""
    runs_seconds: Positive = 900.0
    """How long a run may wait for a slot of an executor."""
    resume_seconds: Positive = 60.0
    """How long a signal may wait for a resumer."""
    slots_held_seconds: Positive = 30.0
    """How long all slots of an executor may be held by runs that wait."""
    restarts: Annotated[int, Field(ge=2)] = 4
    """How often a role may end within five minutes without being stopped, before it counts as restarting in a loop."""
    frozen_seconds: Annotated[float, Field(ge=5)] = 30.0
    """How long a role may give no sign of life before ``sluice up`` kills it and starts it again."""


CANARY: Final = "sluice-canary"
"""The name, or the beginning of the name, of everything that belongs to the canary."""


CANARY_TYPE: Final = "sluice.canary"
"""The type of its file's event. From outside nobody can send an event of this type."""


class CanarySettings(SettingsPart):
    """A file and a message that go the whole way at an interval: whether work is done."""

    enabled: bool | None = None
    """Unset: in production only, where listeners, router, resumer and executor are among the expected roles."""
    interval_seconds: Annotated[float, Field(ge=1)] = 300.0
    timeout_seconds: Annotated[float, Field(ge=1)] = 60.0
    """How long all steps together may take."""


def is_canary(name: str) -> bool:
    """Whether a watch, a source, a rule or a flow run of this name is the canary's."""
    return name.startswith(CANARY)
