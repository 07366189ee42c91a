"""Loading one data file into one table: reading, types, checks, masking and targets, without a server or Prefect.

Needs the extra ``flows`` (pyarrow and the drivers of the databases); importing this does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sluice.lazily import imported_from
from sluice.loading.errors import AmbiguousFile, RefusedFile, TargetFailed

if TYPE_CHECKING:
    from sluice.loading.contracts.contract import Contract
    from sluice.loading.contracts.contract_files import contract_for, project_contracts
    from sluice.loading.load import load_file
    from sluice.loading.reporting.report import BadRows, LoadReport
    from sluice.loading.transfer import NeedsApproval

__all__ = [
    "AmbiguousFile",
    "BadRows",
    "Contract",
    "LoadReport",
    "NeedsApproval",
    "RefusedFile",
    "TargetFailed",
    "contract_for",
    "load_file",
    "project_contracts",
]

_HOMES = {
    "BadRows": "sluice.loading.reporting.report",
    "Contract": "sluice.loading.contracts.contract",
    "LoadReport": "sluice.loading.reporting.report",
    "NeedsApproval": "sluice.loading.transfer",
    "contract_for": "sluice.loading.contracts.contract_files",
    "load_file": "sluice.loading.load",
    "project_contracts": "sluice.loading.contracts.contract_files",
}

__getattr__ = imported_from(__name__, _HOMES)
