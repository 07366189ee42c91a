"""The client library of Sluice: everything that flow authors and other services import.

`wait_for_signal` needs only Prefect, `publish` and `send_signal` need only redis-py, `open_file` needs neither, nor
does the import of this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sluice.errors import FileChanged, FileRefused, OverBudget, SignalRejected, SignalTimeout, TableRefused
from sluice.lazily import imported_from

if TYPE_CHECKING:
    from sluice.budgets import Budget
    from sluice.display import in_markdown, visible
    from sluice.files import OpenedFile, open_file
    from sluice.run_names import run_name
    from sluice.sending import publish, send_signal
    from sluice.tables import claim_table
    from sluice.waiting import wait_for_signal, wait_for_signal_async

__all__ = [
    "Budget",
    "FileChanged",
    "FileRefused",
    "OpenedFile",
    "OverBudget",
    "SignalRejected",
    "SignalTimeout",
    "TableRefused",
    "claim_table",
    "in_markdown",
    "open_file",
    "publish",
    "run_name",
    "send_signal",
    "visible",
    "wait_for_signal",
    "wait_for_signal_async",
]

_HOMES = {
    "Budget": "sluice.budgets",
    "claim_table": "sluice.tables",
    "in_markdown": "sluice.display",
    "OpenedFile": "sluice.files",
    "open_file": "sluice.files",
    "publish": "sluice.sending",
    "run_name": "sluice.run_names",
    "send_signal": "sluice.sending",
    "visible": "sluice.display",
    "wait_for_signal": "sluice.waiting",
    "wait_for_signal_async": "sluice.waiting",
}

__getattr__ = imported_from(__name__, _HOMES)
