"""Run with pytest, in the project's folder: the flow's work, without Prefect."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "flows"))

import order


def test_an_approved_order_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "1042.json"
    file.write_text('{"order_id": 1042, "amount": 129.5}', encoding="utf-8")
    monkeypatch.setattr(order, "wait_for_signal", lambda **_: order.OrderDecision(approved=True, by="ada"))
    state = order.order.fn(str(file))
    assert state.message == "order 1042 over 129.50 was approved by ada"
