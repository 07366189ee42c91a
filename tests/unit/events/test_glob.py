from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.glob import Globs, glob_problem


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("order.*", "order.created"),
        ("order.*", "order.line.added"),
        ("*.csv", "deep/folder/sales.csv"),
        ("*", ""),
        ("a?c", "abc"),
        ("[ab]*", "beta"),
        ("[!ab]*", "gamma"),
        ("[]]", "]"),
        ("[[]x]", "[x]"),
        ("a.b", "a.b"),
        ("*", "line\nbreak"),
        ("*.{csv,json}", "a.json"),
        ("{a,b}.{c,d}", "b.c"),
        ("a{,b}", "a"),
        ("[{]x", "{x"),
        ("[{]a[}]", "{a}"),
    ],
)
def test_a_glob_matches(pattern: str, text: str) -> None:
    assert glob_problem(pattern) is None
    assert Globs([pattern]).matches(text)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("{a,b}", "{a,b}"),
        ("order.*", "Order.created"),
        ("a.b", "axb"),
        ("*.csv", "a.csv.part"),
        ("a?c", "ac"),
        ("[!a]", "a"),
        ("a", "a\n"),
    ],
)
def test_a_glob_does_not_match(pattern: str, text: str) -> None:
    assert not Globs([pattern]).matches(text)


def test_of_several_globs_any_may_match() -> None:
    globs = Globs(["*.csv", "*.json"])
    assert globs.matches("a.json")
    assert not globs.matches("a.xml")
    assert str(globs) == "'*.csv' or '*.json'"


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("", "empty"),
        ("a[b", "never closed"),
        ("[!", "never closed"),
        ("*.{csv,{json,txt}}", "nested"),
        ("{a", "not in pairs"),
        ("a}", "not in pairs"),
        ("{[ab],c}", "nested"),
        ("{a,b}" * 8, "256 globs"),
        ("x" * 513, "512"),
    ],
)
def test_a_bad_glob_is_told_with_its_mending(pattern: str, said: str) -> None:
    assert said in (glob_problem(pattern) or "")


@given(st.text(max_size=30))
def test_every_text_is_a_good_glob_or_has_a_problem(pattern: str) -> None:
    if glob_problem(pattern) is None:
        Globs([pattern]).matches("anything")


@pytest.mark.timeout(10)  # 2**30 steps would take minutes
def test_no_text_makes_a_glob_take_exponential_time() -> None:
    assert not Globs(["*a" * 30 + "b"]).matches("a" * 4000)
