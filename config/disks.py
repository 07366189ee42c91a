"""How much room the disks must have, and how long archived files are kept, in settings."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from config.settings_part import Positive, SettingsPart

_MIB: Final = 1024**2

Percent = Annotated[float, Field(ge=0, lt=100)]


class DiskSettings(SettingsPart):
    """Of the disks of watched folders and of the home. Of a large disk no more than the ``…_mib`` need be free."""

    low_disk_percent: Percent = 10.0
    """With less than this free a watch is degraded."""
    low_disk_mib: Positive = 10_240.0
    full_disk_percent: Percent = 3.0
    """With less than this free no file is taken any more."""
    full_disk_mib: Positive = 1024.0
    done_days: Positive | None = None
    """How long files stay in ``done/``; unset: for ever."""
    done_mib: Positive | None = None
    """How much may lie in ``done/``: beyond, the oldest are deleted."""
    failed_days: Positive | None = None
    failed_mib: Positive | None = None

    def warns_below(self, size: int) -> float:
        """With how many bytes free a disk of ``size`` bytes is nearly full."""
        return min(size * self.low_disk_percent / 100, self.low_disk_mib * _MIB)

    def stops_below(self, size: int) -> float:
        """With how many bytes free no file is taken any more."""
        return min(size * self.full_disk_percent / 100, self.full_disk_mib * _MIB)
