"""Listings on a terminal."""

from __future__ import annotations

import re
import sys
import uuid

import pytest

from services.cli.output import show_rows

ROW = {
    "id": str(uuid.uuid4()),
    "name": "ingest orders-2026-11-30.csv",
    "state": "Completed",
    "started": "2026-11-30 21:04:17",
    "message": "1461 rows of orders-2026-11-30.csv are loaded into the table orders",
}


@pytest.mark.parametrize(("width", "shown"), [(80, False), (200, True)])
def test_a_listing_fits_80_columns_and_leaves_out_what_has_no_room(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int, shown: bool
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show_rows([ROW], tuple(ROW), narrow=("state", "started", "name", "message"), as_json=False)
    printed = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out)
    assert max(map(len, printed.splitlines())) <= width
    assert (ROW["id"] in printed) is shown
    assert "2026-11-30 21:04:17" in printed
