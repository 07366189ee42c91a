"""What csv-to-parquet writes appears complete, where it belongs, and through no link."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows import csv_to_parquet
from flows.csv_to_parquet import convert

NOBODY = 65534


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("create_progress_artifact", "update_progress_artifact"):
        monkeypatch.setattr(csv_to_parquet, name, lambda *_values, **_options: None)
    folder = tmp_path / "inbox"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    monkeypatch.setenv("SLUICE_FOLDERS", json.dumps([str(folder)]))
    (folder / "sub" / "a.csv").write_text("a\n1\n2\n")
    return folder


def test_it_is_beside_its_source_and_nothing_else_is(watch: Path) -> None:
    assert convert.fn(watch / "sub" / "a.csv", watch / "sub" / "a.parquet") == 2
    assert pq.read_table(watch / "sub" / "a.parquet").to_pydict() == {"a": ["1", "2"]}
    assert sorted(path.name for path in (watch / "sub").iterdir()) == ["a.csv", "a.parquet"]


def test_it_may_be_written_to_any_folder_that_a_rule_names(watch: Path) -> None:
    outside = watch.with_name("outside")
    assert convert.fn(watch / "sub" / "a.csv", outside / "a.parquet") == 2
    assert [path.name for path in outside.iterdir()] == ["a.parquet"]


def test_a_link_in_the_place_of_the_result_is_replaced_and_not_written_through(watch: Path) -> None:
    victim = watch.with_name("outside") / "profile"
    victim.write_text("mine")
    (watch / "sub" / "a.parquet").symlink_to(victim)
    convert.fn(watch / "sub" / "a.csv", watch / "sub" / "a.parquet")
    assert victim.read_text() == "mine"
    assert not (watch / "sub" / "a.parquet").is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make links of another user")
def test_a_link_that_takes_the_folders_place_leads_nowhere(watch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = watch.with_name("outside")
    source, target = watch / "sub" / "a.csv", watch / "sub" / "a.parquet"

    def swap() -> None:
        (watch / "sub").rename(watch / "aside")
        (watch / "sub").symlink_to(outside)
        os.lchown(watch / "sub", NOBODY, NOBODY)

    honest = csv_to_parquet.pieces

    def pieces(path: Path) -> Any:
        for piece in honest(path):
            if not (watch / "sub").is_symlink():
                swap()
            yield piece

    monkeypatch.setattr(csv_to_parquet, "pieces", pieces)
    convert.fn(source, target)
    assert (watch / "aside" / "a.parquet").exists()
    with pytest.raises(OSError, match="symbolic links"):
        convert.fn(watch / "aside" / "a.csv", target)
    assert list(outside.iterdir()) == []
