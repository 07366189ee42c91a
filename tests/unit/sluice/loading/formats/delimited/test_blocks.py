"""A text is cut into blocks where a record ends, wherever quotation marks and line ends fall."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.budgets import Budget
from sluice.errors import OverBudget
from sluice.loading.formats.delimited import blocks as blocks_module
from sluice.loading.formats.delimited.blocks import Blocks, count_lines


def blocks(text: bytes, **budget: int) -> Blocks:
    return Blocks(io.BufferedReader(io.BytesIO(text)), Budget(**budget), "x.csv", quote=b'"')


def cut(text: bytes, size: int, **budget: int) -> list[bytes]:
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks_module, "BLOCK_BYTES", size)
        reader = blocks(text, **budget)
        while block := reader.next():
            found.append(block)
        assert reader.at_end
    return found


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_blocks_end_where_lines_do(end: bytes) -> None:
    text = end.join([b"one", b"two", b"three", b"four"])
    found = cut(text, 9)
    assert b"".join(found) == text
    assert len(found) > 1
    assert all(block.endswith(end) for block in found[:-1])


def test_a_line_end_in_quotes_ends_no_block() -> None:
    text = b'1,"a\nb\nc"\n2,"d"\n'
    assert cut(text, 6) == [b'1,"a\nb\nc"\n', b'2,"d"\n']


lines = st.lists(st.sampled_from([b"a", b'"x\ny"', b'"\r\n"', b"", b'"a""b"', b"longer text"]), max_size=12)


@given(lines, st.sampled_from([b"\n", b"\r\n", b"\r"]), st.integers(1, 20))
def test_nothing_is_lost_and_every_block_holds_whole_records(records: list[bytes], end: bytes, size: int) -> None:
    text = b"".join(record + end for record in records)
    found = cut(text, size)
    assert b"".join(found) == text
    assert all(block.count(b'"') % 2 == 0 for block in found)


def test_a_record_that_is_too_long_is_refused_with_its_line() -> None:
    with pytest.raises(OverBudget, match=r"x\.csv, line 1 is too long"):
        cut(b"x" * 200 + b"\n", 10, line_bytes=100)
    with pytest.raises(OverBudget, match="line_bytes"):
        cut(b'"' + b"\n" * 200, 10, line_bytes=100)


def test_the_sign_that_old_programs_end_a_text_with_is_left_out() -> None:
    assert cut(b"a\nb\n\x1a", 100) == [b"a\nb\n"]
    assert cut(b"\x1a", 100) == []


def test_what_is_given_back_comes_again() -> None:
    reader = blocks(b"a\nb\n")
    assert reader.next() == b"a\nb\n"
    assert (reader.more(), reader.at_end) == (b"", True)
    reader.give_back(b"b\n")
    assert not reader.at_end
    assert reader.next() == b"b\n"


@pytest.mark.parametrize(
    ("count", "rest", "line"), [(0, b"a\r\nb\rc\n", 1), (1, b"b\rc\n", 2), (2, b"c\n", 3), (9, b"", 4)]
)
def test_lines_before_the_rows_are_left_out(count: int, rest: bytes, line: int) -> None:
    reader = blocks(b"a\r\nb\rc\n")
    reader.skip_lines(count)
    assert (reader.next(), reader.line) == (rest, line)


def test_a_line_that_is_left_out_has_a_longest_length_too() -> None:
    with pytest.raises(OverBudget, match="line_bytes"):
        blocks(b"x" * 500 + b"\na\n", line_bytes=100).skip_lines(1)


@pytest.mark.parametrize(("text", "count"), [(b"", 0), (b"a\nb\r\nc\rd", 3), (b"\r\r\n\n", 3)])
def test_line_ends_are_counted_of_each_kind(text: bytes, count: int) -> None:
    assert count_lines(text) == count
