"""What the settings of every part have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]


class SettingsPart(BaseModel):
    """The settings of one part."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
