"""The list of Redis keys: complete, and the same in the code and in docs/redis-keys.md."""

from __future__ import annotations

import ast
from pathlib import Path

from services.operations.upkeep.inspector import declared_keys
from services.store.keys import Key, KeyList

CHECKOUT = Path(__file__).resolve().parent.parent.parent
OWNERS = declared_keys()
KEYS = KeyList(key for keys in OWNERS.values() for key in keys)


def row(key: Key, owner: str) -> str:
    name = key.pattern.replace("*", "…")
    return f"| `{name}` | {key.kind} | {key.holds} | {key.life} | `{owner}` |"


def table() -> list[str]:
    rows = sorted((key.pattern, row(key, owner)) for owner, keys in OWNERS.items() for key in keys)
    return [line for _, line in rows]


def test_the_documentation_lists_every_key() -> None:
    lines = (CHECKOUT / "docs" / "redis-keys.md").read_text().splitlines()
    assert [line for line in lines if line.startswith("| `")] == table()


def names_in(file: Path) -> list[str]:
    """Every text of a module that begins as a key does, or a pattern of keys up to its star."""
    nodes = ast.walk(ast.parse(file.read_text()))
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [
        text.partition(" ")[0].rstrip("*")
        for text in texts
        if text.startswith("sluice:") and text.strip("*:") != "sluice"
    ]


def test_every_key_that_the_code_names_is_declared() -> None:
    known = [key.pattern.partition("*")[0] for key in KEYS if key.pattern != "*"]
    known.append("sluice:signals:told:")  # a channel, which holds nothing
    for file in (CHECKOUT / "services").rglob("*.py"):
        for name in names_in(file):
            assert any(name.startswith(one) or one.startswith(name) for one in known), (
                f"{file}: {name!r} is declared by no module's KEYS"
            )


def test_no_two_declarations_are_for_the_same_key() -> None:
    patterns = [key.pattern for key in KEYS]
    assert len(patterns) == len(set(patterns))
