"""Which names count, and as what."""

from __future__ import annotations

import pytest

from config.sources import FilesSource
from services.listeners.files.names import Kind, Marker, Names, is_temporary


def _names(**options: object) -> Names:
    return Names(FilesSource(path="/x", **options))


@pytest.mark.parametrize(
    "name",
    ["a.part", "a.csv.filepart", "a.tmp", "a.crdownload", ".a.swp", "a~", ".~lock.a.ods#", ".nfs00a1", ".a.csv.Xy12zA"],
)
def test_names_that_programs_write_under_are_temporary(name: str) -> None:
    assert is_temporary(name.encode())
    assert _names().kind(name.encode()) is Kind.TEMPORARY


@pytest.mark.parametrize("name", ["a.csv", "part", "a.partial.csv", "tmp", "a.csv.Xy12zA", ".a.Xy12z", "~a"])
def test_other_names_are_not_temporary(name: str) -> None:
    assert not is_temporary(name.encode())


def test_a_temporary_name_that_the_globs_name_is_an_arrival() -> None:
    assert _names(include=["*.tmp"]).kind(b"a.tmp") is Kind.ARRIVAL
    assert _names(include=["*.csv"]).kind(b"a.tmp") is Kind.TEMPORARY


@pytest.mark.parametrize(
    ("include", "path", "kind"),
    [
        (["*"], "a", Kind.ARRIVAL),
        (["*"], "deep/er/a", Kind.ARRIVAL),
        (["*"], ".a", Kind.OTHER),
        ([".*"], ".a", Kind.ARRIVAL),
        (["*.csv"], "deep/a.csv", Kind.ARRIVAL),
        (["*.csv"], ".a.csv", Kind.OTHER),
        (["*.csv"], "a.CSV", Kind.UNCOVERED),
        (["*.csv"], "a.csv.gz", Kind.UNCOVERED),
        (["*.csv.gz"], "a.csv.gz", Kind.ARRIVAL),
        (["*.{csv,json}"], "a.json", Kind.ARRIVAL),
        (["[ab].csv"], "b.csv", Kind.ARRIVAL),
        (["[ab].csv"], "c.csv", Kind.UNCOVERED),
        (["in/*.csv"], "in/a.csv", Kind.ARRIVAL),
        (["in/*.csv"], "in/deep/a.csv", Kind.UNCOVERED),
        (["in/**/*.csv"], "in/a.csv", Kind.ARRIVAL),
        (["in/**/*.csv"], "in/x/y/a.csv", Kind.ARRIVAL),
        (["**/*.csv"], "x/a.csv", Kind.ARRIVAL),
        (["**/*.csv"], "x/.a.csv", Kind.OTHER),
        (["line?break"], "line\nbreak", Kind.ARRIVAL),
    ],
)
def test_a_glob_without_a_slash_is_of_the_name_and_one_with_a_slash_of_the_path(
    include: list[str], path: str, kind: Kind
) -> None:
    assert _names(include=include).kind(path.encode()) is kind


def test_excluded_names_do_not_count_even_when_temporary_or_hidden() -> None:
    names = _names(include=["*", ".*"], exclude=["*.part", "*secret*", "old/**"])
    assert names.kind(b"a.part") is Kind.OTHER
    assert names.kind(b".secret") is Kind.OTHER
    assert names.kind(b"old/deep/a") is Kind.OTHER
    assert names.kind(b"older/a") is Kind.ARRIVAL


@pytest.mark.parametrize("include", [["*"], ["*.json"], ["**/*"], ["*.{json,csv}"]])
def test_a_note_on_a_file_that_failed_is_never_taken_for_a_file(include: list[str]) -> None:
    assert _names(include=include).kind(b"orders/f4_bad.csv.error.json") is Kind.UNCOVERED
    assert _names(include=include).kind(b"error.json") is Kind.ARRIVAL
    assert _names(include=["*.error.json"]).kind(b"f4_bad.csv.error.json") is Kind.ARRIVAL


@pytest.mark.parametrize("include", [["*.csv"], ["*.CSV"], ["**/*.csv"], ["[a-z]*.{csv,json}"]])
def test_a_watch_that_ignores_case_takes_names_in_any(include: list[str]) -> None:
    names = _names(include=include, exclude=["*old*"], ignore_case=True)
    assert {names.kind(path) for path in (b"A15_REPORT.CSV", b"a.csv", b"x.Csv")} == {Kind.ARRIVAL}
    assert names.kind(b"OLD.csv") is Kind.OTHER
    assert names.kind(b"REPORT.XYZ") is Kind.UNCOVERED


def test_a_name_that_only_its_case_keeps_away_is_known() -> None:
    names = _names(include=["*.csv"], exclude=["x*"])
    assert names.fits_in_lower_case(b"A15_REPORT.CSV")
    assert not names.fits_in_lower_case(b"A15_REPORT.XYZ")
    assert not names.fits_in_lower_case(b"a.csv")
    assert not names.fits_in_lower_case(b"X.CSV")


def test_a_name_that_is_not_utf_8_is_matched_like_any_other() -> None:
    assert _names(include=["*.csv"], exclude=["x*"]).kind(b"caf\xe9.csv") is Kind.ARRIVAL
    assert _names(include=["caf?.csv"]).kind(b"caf\xe9.csv") is Kind.ARRIVAL


def test_directories_that_nothing_below_can_match_are_not_entered() -> None:
    names = _names(exclude=["old/**", "**/cache/**"])
    assert not names.enters(b"old")
    assert not names.enters(b"x/cache")
    assert not names.enters(b"cache")
    assert not names.enters(b".git")
    assert names.enters(b"x/old")
    assert _names(include=[".git/*"]).enters(b".git")


@pytest.mark.parametrize(
    ("template", "path", "marker", "owner"),
    [
        ("{name}.done", b"x/a.csv", b"x/a.csv.done", b"x/a.csv"),
        ("ready-{name}", b"a.csv", b"ready-a.csv", b"a.csv"),
        ("{stem}.ok", b"x/a.csv", b"x/a.ok", None),
        ("{stem}.ok", b"x/a", b"x/a.ok", None),
        ("{stem}.ok", b".hidden", b".hidden.ok", None),
    ],
)
def test_a_marker_follows_from_its_files_name(template: str, path: bytes, marker: bytes, owner: bytes | None) -> None:
    rule = Marker(template)
    assert rule.of(path) == marker
    assert rule.is_one(marker.rpartition(b"/")[2])
    assert not rule.is_one(path.rpartition(b"/")[2])
    assert rule.owner(marker) == owner


def test_markers_are_no_arrivals_where_the_watch_has_them_only() -> None:
    assert _names(ready="marker").kind(b"a.csv.done") is Kind.MARKER
    assert _names().kind(b"a.csv.done") is Kind.ARRIVAL
