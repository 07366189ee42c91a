"""The characters that no view may show as they are, listed apart from the code that escapes them."""

from __future__ import annotations

from typing import Final

HIDDEN: Final = "".join(
    map(
        chr,
        (
            *range(0x20),
            *range(0x7F, 0xA0),
            0xAD,
            0x034F,
            0x061C,
            0x115F,
            0x180E,
            *range(0x200B, 0x2010),
            *range(0x2028, 0x202F),
            *range(0x2060, 0x2070),
            0x3164,
            0xFEFF,
            0xFFA0,
            0xFFF9,
            0xE0001,
            0xE0041,
            0xE007F,
        ),
    )
)

HOSTILE: Final = "<".join(f"h{character}" for character in HIDDEN) + ">"
"""All of them, each between two letters, so that none is part of an emoji."""

_FORBIDDEN: Final = frozenset(HIDDEN) - {"\u200d"}


def hidden_in(shown: str, *, lines: bool = False) -> set[str]:
    """Those that are in a text that was shown, but for what joins emoji; also line feeds and tabs unless ``lines``."""
    found = _FORBIDDEN.intersection(shown)
    if "\u200d" in shown and any(
        part and (part[-1].isascii() or not part[-1].strip()) for part in shown.split("\u200d")[:-1]
    ):
        found |= {"\u200d"}
    return set(found) - ({"\n", "\t"} if lines else set())
