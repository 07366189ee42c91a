"""What a rule names that no event will ever have: a type or a source of Sluice's own that is misspelt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from config.sources import FilesSource
from config.yaml_file import KeyPath
from events.event import FILE_ARRIVED, WATCHED, is_own_type
from events.glob import Globs
from events.rule import Rule
from events.suggest import did_you_mean


def unreachable(rule: Rule, watches: Mapping[str, FilesSource]) -> Iterator[tuple[KeyPath, str]]:
    """Each such key, and a sentence with the fix. Of types and sources from outside nothing is known."""
    types = {FILE_ARRIVED, *(watch.type for watch in watches.values())}
    sources = {f"{WATCHED}{name}" for name in watches}
    for pattern in rule.spec.on or ():
        if is_own_type(pattern) and not _matches(pattern, types):
            yield ("on",), f"no event has the type {pattern!r} — {did_you_mean(pattern, types)}"
    for pattern in rule.spec.source or ():
        if sources and pattern.startswith(WATCHED) and not _matches(pattern, sources):
            yield ("source",), f"no watched folder is the source {pattern!r} — {did_you_mean(pattern, sources)}"


def _matches(pattern: str, names: set[str]) -> bool:
    return any(Globs([pattern]).matches(name) for name in names)
