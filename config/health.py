"""From when on an installation is not well, in settings."""

from __future__ import annotations

from typing import Annotated

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
