"""`make lint`: a name stands for one thing, no room outgrows its reader, modules have tests, no test waits in vain.

Prints what is wrong, a line for each, and exits with 1.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ("config", "demo", "events", "flows", "services", "sluice", "tasks")
ROOMS = ("services", "sluice/loading")
MOST_LINES = 350
MOST_MODULES = 12
TESTED = ("config", "events", "services", "sluice")
LEAST_LINES = 60
"""A module of `TESTED` with so many lines has a test module of its name: `test_` and its own."""

WITHOUT_TESTS = ROOT / "tools" / "without_tests.txt"
"""The modules that have none yet; the list may only shrink."""


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


def missing_tests() -> list[str]:
    """The modules without a test module of their name, and those on the list of exceptions that have one."""
    tests = Counter(path.stem for path in (ROOT / "tests").rglob("test_*.py"))
    modules = [path for path in product_files() if path.relative_to(ROOT).parts[0] in TESTED]
    namesakes: dict[str, list[str]] = defaultdict(list)
    for path in modules:
        if path.name != "__init__.py" and len(path.read_text(encoding="utf-8").splitlines()) >= LEAST_LINES:
            namesakes[path.stem].append(path.relative_to(ROOT).as_posix())
    excepted = set(WITHOUT_TESTS.read_text(encoding="utf-8").split())
    found: list[str] = []
    for stem, names in namesakes.items():
        listed = excepted.intersection(names)
        excepted -= listed
        wanted, there = len(names) - len(listed), tests[f"test_{stem}"]
        if there < wanted:
            which = " and ".join(sorted(set(names) - listed))
            found.append(f"{which}: {wanted} test module(s) named test_{stem}.py wanted, {there} there")
        elif listed and there > wanted:
            found.append(f"{' or '.join(sorted(listed))} has a test_{stem}.py: take it off {WITHOUT_TESTS.name}")
    return found + [f"{name} needs no test module: take it off {WITHOUT_TESTS.name}" for name in sorted(excepted)]


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
    lines = [*problems(), *missing_tests(), *test_problems()]
    print("\n".join(lines) or "Names, rooms and waits: kept.")
    sys.exit(bool(lines))
