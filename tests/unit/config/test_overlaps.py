"""Watched folders that get into each other's way are refused together; others may lie as they like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from config.overlaps import watch_problems
from config.sources import FilesSource

KEEP: dict[str, Any] = {"on_success": "keep", "on_failure": "keep"}


def _problems(base: Path, **watches: dict[str, Any]) -> list[tuple[str, str]]:
    return list(watch_problems({name: FilesSource(**{**w, "path": base / w["path"]}) for name, w in watches.items()}))


@pytest.mark.parametrize(
    "watches",
    [
        {"a": {"path": "a"}, "b": {"path": "ab"}},
        {"a": {"path": "a", "exclude": ["b/**"]}, "b": {"path": "a/b"}},
        {"a": {"path": "a", "exclude": ["**/b/**"]}, "b": {"path": "a/x/b/c"}},
        {"a": {"path": "a", "recursive": False}, "b": {"path": "a/b"}},
        {"a": {"path": "a", **KEEP}, "b": {"path": "a/b", **KEEP}},
        {"a": {"path": "a", **KEEP}, "b": {"path": "a", **KEEP}},
    ],
)
def test_watches_that_do_not_take_files_from_each_other_are_let_through(
    tmp_path: Path, watches: dict[str, Any]
) -> None:
    assert _problems(tmp_path, **watches) == []


@pytest.mark.parametrize(
    "watches",
    [
        {"a": {"path": "a"}, "b": {"path": "a/b"}},
        {"b": {"path": "a/b"}, "a": {"path": "a"}},
        {"a": {"path": "a", **KEEP}, "b": {"path": "a/b"}},
        {"a": {"path": "a"}, "b": {"path": "a/b", **KEEP}},
        {"a": {"path": "a"}, "b": {"path": "a"}},
    ],
)
def test_watches_that_would_move_each_others_files_are_refused_once(tmp_path: Path, watches: dict[str, Any]) -> None:
    ((name, sentence),) = _problems(tmp_path, **watches)
    assert name == "b"
    assert "`on_success: keep`" in sentence


@pytest.mark.parametrize("folder", ["done", "failed", "done/deep"])
def test_a_watch_in_anothers_archive_is_refused(tmp_path: Path, folder: str) -> None:
    ((name, sentence),) = _problems(tmp_path, a={"path": "a"}, b={"path": f"a/{folder}", **KEEP})
    assert name == "b"
    assert "puts files after their runs" in sentence


def test_a_watch_behind_a_link_is_found_out(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b")
    assert len(_problems(tmp_path, a={"path": "a"}, b={"path": "link"})) == 1


@pytest.mark.parametrize("name", ["", "two words", "a/b", "a:b", "-a", "x" * 65, "ü"])
def test_a_name_that_cannot_stand_in_ids_is_refused(tmp_path: Path, name: str) -> None:
    ((bad, sentence),) = _problems(tmp_path, **{name: {"path": "a"}})
    assert bad == name
    assert "is not a name for a watch" in sentence
