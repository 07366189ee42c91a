"""Texts of any encoding as UTF-8: named, marked or plain; what may be several is refused with how each would read."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

import pytest

from sluice.budgets import Budget
from sluice.loading.errors import AmbiguousFile, RefusedFile
from sluice.loading.formats.text import encodings
from sluice.loading.formats.text.encodings import TextEncoding, encoding_of, not_utf8, open_utf8
from sluice.loading.reading.source import members

TEXT = "name\nZoë Ömer 名前\n"


@pytest.fixture
def read(tmp_path: Path) -> Any:
    """Reads a file of these bytes: which encoding it has, and its text as UTF-8."""

    def read(content: bytes, named: str | None = None) -> tuple[TextEncoding, bytes]:
        path = tmp_path / "x.csv"
        path.write_bytes(content)
        with path.open("rb") as file:
            (member,) = members(file, path.name, Budget())
            found = encoding_of(member, named)
            with open_utf8(member, found) as stream:
                return found, stream.read()

    return read


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_says_the_encoding_and_is_no_text(read: Any, encoding: str) -> None:
    found, text = read(TEXT.encode(encoding))
    assert (found.why, text.decode()) == ("byte order mark", TEXT)


@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE])
def test_either_order_of_bytes_is_read(read: Any, mark: bytes) -> None:
    encoding = "utf-16-be" if mark == codecs.BOM_UTF16_BE else "utf-32-be"
    assert read(mark + TEXT.encode(encoding))[1].decode() == TEXT


def test_several_marks_are_left_out(read: Any) -> None:
    assert read(codecs.BOM_UTF8 * 3 + b"a")[1] == b"a"


def test_without_a_mark_it_is_utf_8(read: Any) -> None:
    assert read(TEXT.encode())[0] == TextEncoding("utf-8", "every byte is valid UTF-8")


@pytest.mark.parametrize("named", ["cp1252", "latin-1", "gb18030", "utf-16-le", "UTF8", "utf-8-sig"])
def test_what_the_contract_names_is_read(read: Any, named: str) -> None:
    text = "Zoë" if named in {"cp1252", "latin-1"} else TEXT
    found, content = read(text.encode(named), named)
    assert (content.decode(), found.why) == (text, "named in the contract")


@pytest.mark.parametrize(
    ("content", "named", "said"),
    [
        (codecs.BOM_UTF8 + b"a", "cp1252", "begins with the byte order mark of UTF-8, and the contract says"),
        (b"a", "klingon", "no encoding that is known"),
        (b"a", "base64", "no encoding of text"),
        (b"a\nb\nc\x81d", "cp1252", "x.csv, about line 3: "),
        (b"a\xd8", "utf-16-le", "about line 1"),
    ],
)
def test_what_does_not_fit_the_contract_is_refused(read: Any, content: bytes, named: str, said: str) -> None:
    with pytest.raises(RefusedFile, match=r"^.") as caught:
        read(content, named)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("id\n1\n".encode("utf-16-le"), "`encoding: utf-16-le`, which reads 'id"),
        ("id\n1\n".encode("utf-16-be"), "`encoding: utf-16-be`, which reads 'id"),
        ("名前\n".encode("iso2022_jp"), "`encoding: iso2022_jp`, which reads '名前'"),
    ],
)
def test_what_looks_like_another_encoding_is_refused_with_how_it_would_read(
    read: Any, content: bytes, said: str
) -> None:
    with pytest.raises(AmbiguousFile) as caught:
        read(content)
    assert said in str(caught.value)


def test_a_character_may_stand_across_pieces(read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encodings, "_PIECE_BYTES", 3)
    assert read(TEXT.encode("gb18030"), "gb18030")[1].decode() == TEXT


@pytest.mark.parametrize(
    ("text", "first_line", "where"),
    [
        (b"caf\xe9", 1, "line 1: byte 0xE9"),
        (b"ok\ncaf\xe9\n", 1, "line 2: byte 0xE9"),
        (b"ok\r\n\xe9", 7, "line 8: byte 0xE9"),
        (b"\xff", 3, "line 3: byte 0xFF"),
    ],
)
def test_the_first_byte_that_is_not_utf_8_is_told_with_its_line(
    tmp_path: Path, text: bytes, first_line: int, where: str
) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(text)
    with path.open("rb") as file:
        (member,) = members(file, path.name, Budget())
    with pytest.raises(AmbiguousFile, match=f"{where} is not UTF-8. It could be `encoding: "):
        not_utf8(member, text, first_line, TextEncoding("utf-8", "every byte is valid UTF-8"))
    with pytest.raises(RefusedFile, match=f"{where} is not UTF-8, as the contract says"):
        not_utf8(member, text, first_line, TextEncoding("utf-8", "named in the contract"))
