"""`make lint`: no class name stands for two things, and no room or module outgrows its reader.

Prints what is wrong, a line for each, and exits with 1.
"""

from __future__ import annotations

import ast
import sys
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


if __name__ == "__main__":
    lines = problems()
    print("\n".join(lines) or "Names and rooms: kept.")
    sys.exit(bool(lines))
