"""Personal data made harmless before it goes anywhere: e-mail addresses, telephone numbers, ids."""

from __future__ import annotations

from typing import Any, Literal

import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE

from sluice.loading.contracts.contract import Mask
from sluice.loading.masking import Masking
from tasks.credentials import secret_of

Kind = Literal["email", "phone", "hmac", "partial", "drop"]


@task(cache_policy=NO_CACHE)
def mask_rows(rows: list[dict[str, Any]], kinds: dict[str, Kind]) -> list[dict[str, Any]]:
    """The rows with the columns of ``kinds`` masked, as `sluice.loading.masking.Masking` says; None stays None.

    ``hmac`` is equal for equal text, so that tables can still be joined by it. Its key is the Secret block
    ``masking-secret``, or ``SLUICE_MASKING_SECRET``: a hash without a key can be found by trying.
    """
    secret = secret_of("masking-secret", "SLUICE_MASKING_SECRET") if "hmac" in kinds.values() else None
    masking = Masking({column: Mask(kind=kind) for column, kind in kinds.items()}, secret)
    masked = {
        column: masking.column(column, pa.array([_text(row.get(column)) for row in rows], pa.string())).to_pylist()
        for column, kind in kinds.items()
        if kind != "drop"
    }
    return [
        {
            column: masked[column][at] if column in masked else value
            for column, value in row.items()
            if kinds.get(column) != "drop"
        }
        for at, row in enumerate(rows)
    ]


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
