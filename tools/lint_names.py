"""`make lint`: a class name stands for one thing, no room or module outgrows its reader, no test waits without reason.

Prints what is wrong, a line for each, and exits with 1.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ("config", "demo", "events", "flows", "services", "sluice", "tasks")
ROOMS = ("services", "sluice/loading")
MOST_LINES = 350
MOST_MODULES = 12


def product_files() -> list[Path]:
    """The modules of the product."""
    return [path for name in PRODUCT for path in sorted((ROOT / name).rglob("*.py"))]


def problems() -> list[str]:
    """What does not hold, in words."""
    found: list[str] = []
    homes: dict[str, list[str]] = defaultdict(list)
    rooms: dict[Path, int] = defaultdict(int)
    for path in product_files():
        name = path.relative_to(ROOT).as_posix()
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(name)
        if (lines := text.count("\n")) > MOST_LINES:
            found.append(f"{name} has {lines} lines, and {MOST_LINES} is the most: divide it where its reasons differ")
        if path.name != "__init__.py":
            rooms[path.parent] += 1
    for name, where in sorted(homes.items()):
        if len(where) > 1:
            found.append(f"the class name {name} stands for two things: in {' and in '.join(where)}")
    for room, modules in sorted(rooms.items()):
        if modules > MOST_MODULES and any(room.is_relative_to(ROOT / one) for one in ROOMS):
            found.append(
                f"{room.relative_to(ROOT)} has {modules} modules, and {MOST_MODULES} is the most: make rooms in it"
            )
    return found


def waits_without_reason(name: str, text: str) -> list[str]:
    """The sleeps of a module of the tests for which no comment on their lines, or on the one before, says why.

    A `while` loop polls, and a random time is the moment of a fault: these need none.
    """
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    reasons = {token.start[0] for token in tokens if token.type == tokenize.COMMENT}
    tree = ast.parse(text)
    polling = {node for loop in ast.walk(tree) if isinstance(loop, ast.While) for node in ast.walk(loop)}
    found: list[str] = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or ast.unparse(node.func).rpartition(".")[2] != "sleep" or node in polling:
            continue
        time = ast.unparse(node.args[0])
        last = node.end_lineno or node.lineno
        if time != "0" and "uniform" not in time and reasons.isdisjoint(range(node.lineno - 1, last + 1)):
            found.append(
                f"{name}:{node.lineno} sleeps: wait for a condition (tests/support/waiting.py), or say why in a comment"
            )
    return found


def test_problems() -> list[str]:
    """`waits_without_reason` of every module of the tests."""
    paths = sorted((ROOT / "tests").rglob("*.py"))
    return [
        line
        for path in paths
        for line in waits_without_reason(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
    ]


if __name__ == "__main__":
    lines = [*problems(), *test_problems()]
    print("\n".join(lines) or "Names, rooms and waits: kept.")
    sys.exit(bool(lines))
