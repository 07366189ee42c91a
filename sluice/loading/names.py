"""Names of tables and columns made of the names that files have: two that differ never become one without a word."""

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
"""Besides dashes, spaces and what is not to be seen: they divide words, and one underscore stands for all of them."""
_DIGEST_LENGTH: Final = 8

REJECTED_ENDING: Final = ".rejected.csv"
"""Of the names of files with bad rows; before it stands the name of the file that they are from."""
PACKED: Final = (".gz", ".zst", ".bz2", ".xz")
"""Endings of single files that are packed."""
_COUNTED: Final = re.compile(
    r"^(.+?)(?:~(?:[2-9]|[1-9][0-9]{1,3}))+((?:\.[^.]*)?(?:\.(?:gz|zst|bz2|xz))?)$", re.IGNORECASE | re.DOTALL
)
_REJECTED: Final = re.compile(rf"(.+?)(?:\.[0-9a-f]{{8}})?{re.escape(REJECTED_ENDING)}", re.IGNORECASE | re.DOTALL)


def original_name(name: str) -> str | None:
    """The name of the file that the bad rows in a file of this name are from; None for any other file."""
    found = _REJECTED.fullmatch(as_dropped(name))
    return as_dropped(found[1]) if found else None


def as_dropped(name: str) -> str:
    """The name without the ``~2`` that a file gets when it is put away where another one of its name lies."""
    return _COUNTED.sub(r"\1\2", name)


def without_packing(name: str) -> str:
    """The name without the ending that says how the file is packed; an archive keeps its own."""
    return next((name[: -len(one)] for one in PACKED if name.lower().endswith(one)), name)


@dataclass(frozen=True, slots=True)
class NameFromFile:
    """The table that a file's name leads to."""

    table: str
    spelling: str
    """The name that it was made of, as far as spelling counts: neither letter case nor the form of Unicode does.

    Two spellings can lead to one table (``a-b`` and ``a_b``): `sluice.claim_table` refuses the one that comes second.
    """


def table_of(stem: str) -> NameFromFile:
    """The table for files of this name, without its extensions: ``Orders 2026-03`` goes to ``orders_2026_03``.

    Letters, digits and their marks are kept in any script. Other signs (``C#``, ``C++``, emoji) are left out and make
    the name end in eight digits of its own; so do names that are too long for a database.
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
    """Whether the character says something that a table's name does not keep."""
    if character in _SEPARATORS:
        return False
    category = unicodedata.category(character)
    return category[0] == "S" or category == "Po"


def column_names(found: Iterable[str], longest: int = 1000) -> list[str]:
    """Names that a database keeps apart (it may ignore case, and cut after ``longest`` bytes), in the same order."""
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
    """The name as it is compared with others: neither letter case nor the form of Unicode makes another column."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def cut(text: str, longest: int) -> str:
    """As much of the text as has at most ``longest`` bytes in UTF-8."""
    return text.encode(errors="replace")[:longest].decode(errors="ignore")
