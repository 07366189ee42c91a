"""The project as a picture: sources, the rules that may match their events, and what these start or send.

It is drawn from the project file alone: Redis and Prefect are not asked, so it also works before anything has run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from config.project import Project
from events.rule import Rule
from sluice.display import visible

_RESERVED: Final = "sluice."
"""Prefix of the types of Sluice's own events, which no event from outside may have."""

_LONGEST: Final = 48
"""Characters of a name that fit into a box of the SVG picture."""

_WIDTH, _HEIGHT, _GAP, _ACROSS = 320, 34, 14, 120
"""In pixels: the size of a box, the space between two of a column, and between two columns."""


@dataclass(frozen=True, slots=True)
class RulesGraph:
    """Three columns of names, each without repetitions, and the edges between columns."""

    sources: tuple[str, ...]
    rules: tuple[str, ...]
    effects: tuple[str, ...]
    edges: frozenset[tuple[str, str]]

    @property
    def columns(self) -> tuple[tuple[str, ...], ...]:
        """The columns from left to right."""
        return (self.sources, self.rules, self.effects)


def graph_of(project: Project) -> RulesGraph:
    """Return the graph of the enabled rules.

    A watched folder has an edge to each rule that matches its type of events. The type of an event from Redis or HTTP
    is known only when it arrives: such a source has an edge to every rule that matches some type from outside.
    """
    rules = [rule for rule in project.rules.rules if rule.spec.enabled]
    takers: dict[str, list[Rule]] = {}
    for name, folder in project.sources.files.items():
        takers[f"folder {name}"] = [rule for rule in rules if rule.fits_type(folder.type)]
    outside = [rule for rule in rules if any(not one.startswith(_RESERVED) for one in _patterns(rule))]
    for name, source in project.sources.redis.items():
        if source.carries == "events":
            takers[f"redis {name}"] = outside
    for name in project.sources.http.named:
        takers[f"http {name}"] = outside
    for name in project.sources.http.hooks:
        takers[f"hook {name}"] = outside
    effects = {rule.name: _effects(rule) for rule in rules}
    edges = {(source, rule.name) for source, taking in takers.items() for rule in taking}
    edges |= {(name, effect) for name, found in effects.items() for effect in found}
    unique = tuple(dict.fromkeys(effect for found in effects.values() for effect in found))
    return RulesGraph(tuple(takers), tuple(rule.name for rule in rules), unique, frozenset(edges))


def as_mermaid(graph: RulesGraph) -> str:
    """Return a Mermaid flowchart, which GitHub, GitLab and many editors draw."""
    shapes = ('(["{}"])', '["{}"]', '[["{}"]]')
    ids = _numbered(graph)
    lines = ["flowchart LR"]
    for column, shape in zip(range(3), shapes, strict=True):
        lines += [f"  {ids[column, name]}{shape.format(_label(name))}" for name in graph.columns[column]]
    return "\n".join(
        [*lines, *(f"  {ids[0 + at, left]} --> {ids[1 + at, right]}" for at, left, right in _edges(graph))]
    )


def as_svg(graph: RulesGraph) -> str:
    """Return a complete SVG picture, without links to fonts or styles elsewhere."""
    places = {
        (column, name): (20 + column * (_WIDTH + _ACROSS), 20 + row * (_HEIGHT + _GAP))
        for column, names in enumerate(graph.columns)
        for row, name in enumerate(names)
    }
    width = 3 * _WIDTH + 2 * _ACROSS + 40
    height = 40 + max(map(len, graph.columns), default=1) * (_HEIGHT + _GAP)
    box = f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="14"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {box}>']
    for at, left, right in _edges(graph):
        (x, y), (to_x, to_y) = places[at, left], places[at + 1, right]
        x, y, to_y, middle = x + _WIDTH, y + _HEIGHT // 2, to_y + _HEIGHT // 2, _ACROSS // 2
        curve = f"M{x} {y} C{x + middle} {y} {to_x - middle} {to_y} {to_x} {to_y}"
        parts.append(f'<path d="{curve}" fill="none" stroke="#888"/>')
    for (column, name), (x, y) in places.items():
        fill = ("#e3f2e1", "#fff5d6", "#e1ecf7")[column]
        text = escape(visible(name, _LONGEST))
        parts.append(f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" fill="{fill}" stroke="#666"/>')
        parts.append(f'<text x="{x + 10}" y="{y + 22}">{text}</text>')
    return "\n".join([*parts, "</svg>"])


def _patterns(rule: Rule) -> list[str]:
    return [pattern for globs in rule.types.values() for pattern in globs.patterns]


def _effects(rule: Rule) -> list[str]:
    runs = [f"run {action.run}" for action in rule.spec.actions if action.run]
    resumes = (action.resume for action in rule.spec.actions if action.resume)
    return runs + [f"{one.action} {one.key or f'run {one.run_id}'}" for one in resumes]


def _numbered(graph: RulesGraph) -> dict[tuple[int, str], str]:
    return {
        (column, name): f"{'srd'[column]}{number}"
        for column, names in enumerate(graph.columns)
        for number, name in enumerate(names)
    }


def _edges(graph: RulesGraph) -> Sequence[tuple[int, str, str]]:
    """Return each edge as the index of its left column and its two names, in the order of the columns."""
    between = ((0, graph.sources, graph.rules), (1, graph.rules, graph.effects))
    return [
        (at, left, right)
        for at, lefts, rights in between
        for left in lefts
        for right in rights
        if (left, right) in graph.edges
    ]


def _label(name: str) -> str:
    return escape(visible(name, _LONGEST), quote=False).replace('"', "#quot;")
