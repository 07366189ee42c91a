"""Nothing that is shown hides anything, and what can be seen stays as it is."""

from __future__ import annotations

import json
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.display import in_json, in_markdown, visible
from tests.support.hidden import HIDDEN, hidden_in

TEXTS = st.text(
    st.one_of(st.characters(), st.sampled_from([*HIDDEN, *"\u200d\ufe0f\ufe00\U000e0101❤👩🏽😀葛1#\n"])), max_size=40
)


@pytest.mark.parametrize("character", HIDDEN, ids=lambda one: f"U+{ord(one):04X}")
def test_each_hidden_character_becomes_an_escape(character: str) -> None:
    shown = visible(f"a{character}b")
    assert shown.isascii()
    assert shown.isprintable()
    assert shown.startswith("a\\")
    assert shown.endswith("b")


def test_the_escapes_are_those_of_a_string_literal() -> None:
    assert visible("a\x1b\x7f\x9b\u202e\U000e0041\udc80\r\n\t") == r"a\x1b\x7f\x9b\u202e\U000e0041\udc80\r\n\t"
    assert visible("a\n\tb\x1b\r\n", lines=True) == "a\n\tb\\x1b\\r\n"


def test_no_control_or_format_character_of_unicode_is_forgotten() -> None:
    """But for the signs of a number or a verse in Arabic, Syriac and Kaithi, which are seen."""
    kept = {
        code
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and visible(chr(code)) == chr(code)
    }
    seen = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
    assert kept <= seen


@pytest.mark.parametrize(
    "text",
    [
        "Größe: 5 µm, naïve café",
        "订单 2026年 ご注文 葛\U000e0100城 주문",
        "Привет שלום مرحبا नमस्ते",
        "e\u0301 as two characters",
        "👨\u200d👩\u200d👧 👩🏽\u200d💻 ❤\ufe0f\u200d🔥 🏳\ufe0f\u200d🌈 1\ufe0f\u20e3 ☎\ufe0e",
        r"C:\temp\new and \x1b that somebody wrote",
        "no\u00a0break",
        "",
    ],
)
def test_what_can_be_seen_stays_as_it_is(text: str) -> None:
    assert visible(text) == text
    assert visible(text, lines=True) == text
    assert in_json(text) == text


@pytest.mark.parametrize("text", ["a\u200db", "😀\u200db", "a\u200d😀", "a\ufe0f", "\ufe0f", "a\U000e0101", "😀\ufe00"])
def test_a_joiner_or_a_selector_elsewhere_is_shown(text: str) -> None:
    assert visible(text) != text


@given(text=TEXTS, limit=st.none() | st.integers(2, 50), lines=st.booleans())
def test_nothing_hidden_comes_out_and_nothing_is_escaped_twice(text: str, limit: int | None, *, lines: bool) -> None:
    shown = visible(text, limit, lines=lines)
    assert visible(shown, lines=lines) == shown
    assert not hidden_in(shown, lines=lines)
    assert limit is None or len(shown) <= limit


@given(text=TEXTS)
def test_a_json_document_says_the_same(text: str) -> None:
    document = in_json(json.dumps({text: [text]}, ensure_ascii=False, indent=2))
    assert json.loads(document) == json.loads(json.dumps({text: [text]}))
    assert not hidden_in(document, lines=True)


def test_markdown_has_no_markup_from_outside() -> None:
    assert in_markdown("a|b [c](http://x) `d` <e>\n# f") == r"a\|b \[c\]\(http://x\) \`d\` \<e\>\\n\# f"
    assert not hidden_in(in_markdown("".join(HIDDEN)))
