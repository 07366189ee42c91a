"""Finds watched folders that conflict with each other."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from itertools import permutations
from pathlib import Path
from typing import Final

from wcmatch import glob

from config.paths import FLAGS
from config.sources import FilesSource

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def watch_problems(watches: Mapping[str, FilesSource]) -> Iterator[tuple[str, str]]:
    """Return the conflicts of the watches: the watch to change, and a sentence that says how."""
    for name in watches:
        if not _NAME.fullmatch(name):
            yield name, f"{name!r} is not a name for a watch — take letters, digits, `_`, `.` and `-`, at most 64"
    roots = {name: Path(os.path.realpath(watch.path)) for name, watch in watches.items()}
    for (outer, around), (inner, within) in permutations(watches.items(), 2):
        if not roots[inner].is_relative_to(roots[outer]) or (roots[inner] == roots[outer] and outer > inner):
            continue
        below = roots[inner].relative_to(roots[outer])
        if below.parts and below.parts[0] in {around.done, around.failed}:
            key = "done" if below.parts[0] == around.done else "failed"
            problem = (
                f"the folder lies in {below.parts[0]!r}, where the watch {outer!r} puts files after their runs — "
                f"watch another folder, or set `{key}` of {outer!r}"
            )
            yield inner, problem
        elif _reaches(around, below) and not (_keeps(around) and _keeps(within)):
            exclude = f"`exclude: [{below.as_posix()}/**]` in {outer!r}, or " if below.parts else ""
            problem = (
                f"the watch {outer!r} takes the same files, and one of the two would move them away from the other"
                f" — set {exclude}`on_success: keep` and `on_failure: keep` in both"
            )
            yield inner, problem


def _keeps(watch: FilesSource) -> bool:
    return watch.on_success == watch.on_failure == "keep"


def _reaches(watch: FilesSource, below: Path) -> bool:
    """Whether the watch covers the directory ``below`` it."""
    if below.parts and not watch.recursive:
        return False
    trees = [pattern.removesuffix("/**") for pattern in watch.exclude if pattern.endswith("/**")]
    on_the_way = [part.as_posix() for part in (below, *below.parents) if part.parts]
    return not any(glob.globmatch(part, trees, flags=FLAGS | glob.DOTGLOB) for part in on_the_way if trees)
