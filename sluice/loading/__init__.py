"""Loading one data file into one table: reading, types, checks, masking and targets, without a server or Prefect.

Needs the extra ``flows`` (pyarrow and the drivers of the databases); importing this does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sluice.loading.errors import AmbiguousFile, RefusedFile, TargetFailed

if TYPE_CHECKING:
    from sluice.loading.contract import Contract
    from sluice.loading.load import load_file
    from sluice.loading.report import BadRows, LoadReport
    from sluice.loading.transfer import NeedsApproval

__all__ = [
    "AmbiguousFile",
    "BadRows",
    "Contract",
    "LoadReport",
    "NeedsApproval",
    "RefusedFile",
    "TargetFailed",
    "load_file",
]

_HOMES = {
    "BadRows": "sluice.loading.report",
    "Contract": "sluice.loading.contract",
    "LoadReport": "sluice.loading.report",
    "NeedsApproval": "sluice.loading.transfer",
    "load_file": "sluice.loading.load",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)
