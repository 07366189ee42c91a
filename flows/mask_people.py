"""Personal data masked before it goes anywhere: e-mail addresses, telephone numbers, and ids by a keyed hash.

Needs the Secret block ``masking-secret``, or ``SLUICE_MASKING_SECRET``, of 16 bytes at least.
"""

from __future__ import annotations

from typing import Any, Final

from prefect import State, flow
from prefect.artifacts import create_table_artifact
from prefect.states import Completed

from sluice import run_name, visible
from tasks.checks import check_rows
from tasks.masking import Kind, mask_rows

EXAMPLE: Final = [{"id": "17", "email": "ada@example.com", "phone": "+44 20 7946 0958", "city": "London"}]
KINDS: Final[dict[str, Kind]] = {"id": "hmac", "email": "email", "phone": "phone"}


@flow(name="mask-people", flow_run_name=run_name("mask people"))
def mask_people(rows: list[dict[str, Any]] | None = None, kinds: dict[str, Kind] | None = None) -> State[Any]:
    """Mask the columns of ``kinds`` (email, phone, hmac, partial, drop) and show the rows as they may be seen.

    Needs the masking secret for ``hmac``. Parameters show in Prefect's UI: in a flow of yours, read the rows inside the
    run, and hand only masked ones on.
    """
    people = rows if rows is not None else EXAMPLE
    check_rows(people)
    masked = mask_rows(people, kinds or KINDS)
    shown = [{column: visible(str(value)) for column, value in row.items()} for row in masked]
    create_table_artifact(shown, key="masked-people", description="As anybody may see them")
    return Completed(message=f"{len(masked)} rows are masked", data=masked)


if __name__ == "__main__":
    mask_people()
