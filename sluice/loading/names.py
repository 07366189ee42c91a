"""Makes names of tables and columns from the names in files; two different ones never silently become one."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sluice.display import visible
from sluice.tables import LONGEST_NAME, RESERVED

_SEPARATORS: Final = frozenset("_|\\/:;,.()[]{}'\"`")
"""Signs that divide words, besides dashes, spaces and invisible characters; one underscore replaces them."""
_DIGEST_LENGTH: Final = 8

REJECTED_ENDING: Final = ".rejected.csv"
"""Ending of files with bad rows; before it is the name of the file from which they are."""
PACKED: Final = (".gz", ".zst", ".bz2", ".xz")
"""Endings of packed single files."""
_COUNTED: Final = re.compile(
    r"^(.+?)(?:~(?:[2-9]|[1-9][0-9]{1,3}))+((?:\.[^.]*)?(?:\.(?:gz|zst|bz2|xz))?)$", re.IGNORECASE | re.DOTALL
)
_REJECTED: Final = re.compile(rf"(.+?)(?:\.[0-9a-f]{{8}})?{re.escape(REJECTED_ENDING)}", re.IGNORECASE | re.DOTALL)


def original_name(name: str) -> str | None:
    """Return the name of the file from which the bad rows in a file of this name are; None for any other file."""
    found = _REJECTED.fullmatch(as_dropped(name))
    return as_dropped(found[1]) if found else None


def as_dropped(name: str) -> str:
    """Return the name without the ``~2`` that a file gets when it is archived beside another one of its name."""
    return _COUNTED.sub(r"\1\2", name)


def without_packing(name: str) -> str:
    """Return the name without the ending of its packing; an archive keeps its ending."""
    return next((name[: -len(one)] for one in PACKED if name.lower().endswith(one)), name)


@dataclass(frozen=True, slots=True)
class NameFromFile:
    """The table that a file's name leads to."""

    table: str
    spelling: str
    """The name from which it was made, without differences of letter case and Unicode form.

    Two spellings can lead to one table (``a-b`` and ``a_b``): `sluice.claim_table` refuses the second one.
    """


def table_of(stem: str) -> NameFromFile:
    """Return the table for files of this name, without its extensions: ``orders_2026_03`` for ``Orders 2026-03``.

    Letters, digits and their marks are kept in any script. Other signs (``C#``, ``C++``, emoji) are left out, and then
    eight digits of a digest end the name, so that such names stay different; likewise for names that are too long for a
    database.
    """
    known = stem.encode(errors="backslashreplace").decode()
    spelling = unicodedata.normalize("NFC", unicodedata.normalize("NFD", known).casefold())
    compatible = unicodedata.normalize("NFKC", spelling).casefold()
    kept = "".join(_kept(character) for character in unicodedata.normalize("NFC", compatible))
    name = re.sub("_+", "_", kept).strip("_")
    if name.startswith(RESERVED):
        name = f"t_{name}"
    if not name or any(_is_sign(character) for character in compatible) or len(name.encode()) > LONGEST_NAME:
        digest = hashlib.sha256(spelling.encode()).hexdigest()[:_DIGEST_LENGTH]
        name = f"{cut(name, LONGEST_NAME - _DIGEST_LENGTH - 1) or 'file'}_{digest}"
    return NameFromFile(name, spelling)


def _kept(character: str) -> str:
    if visible(character) != character:
        return "_"
    return character if unicodedata.category(character)[0] in "LNM" else "" if _is_sign(character) else "_"


def _is_sign(character: str) -> bool:
    """Return whether the character has a meaning that a table's name does not keep."""
    if character in _SEPARATORS:
        return False
    category = unicodedata.category(character)
    return category[0] == "S" or category == "Po"


def column_names(found: Iterable[str], longest: int = 1000) -> list[str]:
    """Return names that a database keeps apart, in order; it may ignore case and cut after ``longest`` bytes."""
    names: list[str] = []
    taken: set[str] = set()
    repetitions: dict[str, int] = {}
    for position, text in enumerate(found, start=1):
        wanted = " ".join(re.sub(r"[\x00-\x1f\x7f]", " ", text[:longest]).split()) or f"column_{position}"
        name = cut(wanted, longest)
        key = column_key(name)
        while column_key(name) in taken:
            repetitions[key] = repetitions.get(key, 1) + 1
            name = cut(wanted, longest - len(f"_{repetitions[key]}")) + f"_{repetitions[key]}"
        taken.add(column_key(name))
        names.append(name)
    return names


def column_key(name: str) -> str:
    """Return the name as it is compared with others: without letter case and Unicode form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def cut(text: str, longest: int) -> str:
    """Return the beginning of the text with at most ``longest`` bytes in UTF-8, without cutting a character."""
    return text.encode(errors="replace")[:longest].decode(errors="ignore")
