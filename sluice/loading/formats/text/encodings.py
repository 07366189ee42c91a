"""Reads text of any encoding as UTF-8: the encoding of the contract or of a byte order mark, otherwise UTF-8."""

from __future__ import annotations

import codecs
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from sluice.loading.errors import AmbiguousFile, RefusedFile
from sluice.loading.reading.source import Member
from sluice.loading.showing import content

_MARKS: Final = (  # the longer ones first: that of UTF-32 begins like that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LEGACY: Final = (
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "koi8_r", "cp437", "cp850"),
    *("mac_roman", "iso8859_2", "shift_jis", "euc_jp", "gb18030", "big5", "euc_kr"),
)
"""The encodings with which a text that is not UTF-8 is compared for the message."""
_PIECE_BYTES: Final = 256 * 1024
_SHOWN: Final = 60
_LOOKED_AT: Final = 4096


@dataclass(frozen=True, slots=True)
class TextEncoding:
    """The encoding of a text, and why it was chosen."""

    name: str
    """The name of Python's codec."""
    why: str


def encoding_of(member: Member, named: str | None) -> TextEncoding:
    """Return the encoding of a text; ``named`` is that of the contract, if any.

    Raises `RefusedFile` if the byte order mark contradicts the contract, and `AmbiguousFile` for text that looks like
    UTF-16 or ISO-2022 without saying so.
    """
    start = member.beginning(_LOOKED_AT)
    marked = next((name for mark, name in _MARKS if start.startswith(mark)), None)
    if named is not None:
        name = _known(named)
        if marked is not None and not name.startswith(marked):
            raise RefusedFile(
                f"{member.label} begins with the byte order mark of {marked.upper()}, and the contract says `encoding: "
                f"{named}`: leave that line out, or have the file written in {named}"
            )
        return TextEncoding(name, "named in the contract")
    if marked is not None:
        return TextEncoding(marked, "byte order mark")
    _check_wide(member, start)
    if b"\x1b$" in start or b"\x1b(" in start:
        _refuse(member, "holds the escape sequences of ISO-2022", _readings(start, ("iso2022_jp", "utf-8")))
    return TextEncoding("utf-8", "every byte is valid UTF-8")


def open_utf8(member: Member, encoding: TextEncoding) -> io.BufferedReader:
    """Open the text from its beginning as UTF-8 without byte order marks.

    Text that claims to be UTF-8 is not checked here: see `not_utf8`. Bytes that are invalid in another encoding raise
    `RefusedFile` when they are read.
    """
    stream = member.open()
    if encoding.name != "utf-8":
        stream = io.BufferedReader(_Transcoded(stream, encoding.name, member.label), _PIECE_BYTES)
    mark = len(codecs.BOM_UTF8)
    while stream.peek(mark)[:mark] == codecs.BOM_UTF8:  # some programs write a second one
        stream.read(mark)
    return stream


def not_utf8(member: Member, text: bytes, first_line: int, encoding: TextEncoding) -> NoReturn:
    """Refuse a text that is not UTF-8, with the place of its first invalid byte, and how other encodings read it."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        at = error.start
    else:
        raise AssertionError("the text is UTF-8")
    line = first_line + len(text[:at].splitlines()) - (0 if text[:at].endswith((b"\n", b"\r")) or not at else 1)
    start = max(text.rfind(b"\n", 0, at), text.rfind(b"\r", 0, at)) + 1
    shown = text[start:].splitlines()[0]
    where = f"line {line}: byte 0x{text[at]:02X} is not UTF-8"
    if encoding.why == "named in the contract":
        raise RefusedFile(f"{member.label}, {where}, as the contract says: correct the file or the line `encoding:`")
    _refuse(member, where, _readings(shown[max(0, at - start - 20) :], _guesses(text)))


def _refuse(member: Member, what: str, readings: str) -> NoReturn:
    raise AmbiguousFile(
        f"{member.label}, {what}. It could be {readings}: have it written in UTF-8, or name the encoding in a contract"
    )


def _readings(text: bytes, encodings: Sequence[str]) -> str:
    found = []
    for name in encodings:
        try:
            said = text.decode(name)
        except UnicodeDecodeError:
            said = text.decode(name, errors="ignore")
        found.append(f"`encoding: {name}`, which reads {content(said.strip(), _SHOWN)!r}")
    return ", or ".join(found)


def _guesses(text: bytes) -> list[str]:
    """Return two encodings that the text may have: the guess of a library, and the most frequent ones."""
    import charset_normalizer

    found = charset_normalizer.from_bytes(text[: 16 * _LOOKED_AT], cp_isolation=list(_LEGACY)).best()
    names = [found.encoding] if found is not None else []
    return list(dict.fromkeys([*names, "cp1252", "cp1250"]))[:2]


def _check_wide(member: Member, start: bytes) -> None:
    """Refuse UTF-16 without a byte order mark: text of which every second byte is zero."""
    zeros = start.count(0)
    if zeros * 4 < len(start) or not zeros:
        return
    for name, first in (("utf-16-le", 1), ("utf-16-be", 0)):
        if start[first::2].count(0) == zeros:
            what = "has no byte order mark, and every second byte of it is zero"
            _refuse(member, what, _readings(start[: 2 * _SHOWN], (name, "utf-8")))


def _known(name: str) -> str:
    try:
        found = codecs.lookup(name)
    except LookupError:
        raise RefusedFile(f"the contract says `encoding: {name}`, which is no encoding that is known") from None
    if not found._is_text_encoding:  # noqa: SLF001 - as `str.encode` asks it
        raise RefusedFile(f"the contract says `encoding: {name}`, which is no encoding of text")
    return "utf-8" if found.name == "utf-8-sig" else found.name


class _Transcoded(io.RawIOBase):
    """A text in another encoding, read as UTF-8."""

    def __init__(self, source: io.BufferedReader, encoding: str, label: str) -> None:
        super().__init__()
        self._source = source
        self._decoder: Any = codecs.getincrementaldecoder(encoding)()
        self._encoding = encoding
        self._label = label
        self._ready = b""
        self._lines = 1

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            piece = self._source.read1(_PIECE_BYTES)
            try:
                text = self._decoder.decode(piece, final=not piece)
                self._ready = text.encode()
            except UnicodeError as error:
                before = getattr(error, "object", b"")[: getattr(error, "start", 0)]
                line = self._lines + before.decode(self._encoding, errors="ignore").count("\n")
                raise RefusedFile(
                    f"{self._label}, about line {line}: {error}; correct the file, or the contract's `encoding:`"
                ) from error
            self._lines += text.count("\n")
            if not piece:
                break
        taken = self._ready[: len(buffer)]
        self._ready = self._ready[len(taken) :]
        buffer[: len(taken)] = taken
        return len(taken)

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()
