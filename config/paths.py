"""The small languages of a watched folder's configuration: globs, path templates, folder names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from wcmatch import glob

RESERVED: Final = frozenset({"watch", "path", "name", "size", "mtime", "sha256", "encoding"})
"""The names in a file event's data that are the listener's own."""

FLAGS: Final = glob.GLOBSTAR | glob.BRACE | glob.CASE

_PART: Final = re.compile(r"\{([^{}]*)\}")
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_KINDS: Final[Mapping[str, tuple[str, Callable[[str], str | int]]]] = {
    "": (r"[^/]+?", str),
    "int": (r"[0-9]{1,18}", int),
    "path": (r".+?", str),
}


class PathTemplate:
    """A pattern such as ``{customer}/{year:int}/{rest:path}`` over a path below the watch.

    ``{name}`` takes a part without a slash, ``:int`` digits (as a number), ``:path`` anything. A leading ``{watch}/``
    stands for the watch itself. Raises `ValueError` where it is not well formed.
    """

    def __init__(self, template: str) -> None:
        body = template.removeprefix("{watch}/")
        if body.startswith("/"):
            raise ValueError("the template is relative to the watch: take the leading slash away")
        pattern, position = "", 0
        self._kinds: dict[str, Callable[[str], str | int]] = {}
        for match in _PART.finditer(body):
            name, _, kind = match[1].partition(":")
            check_data_name(name)
            if name in self._kinds:
                raise ValueError(f"`{{{name}}}` stands in the template twice")
            if kind not in _KINDS:
                raise ValueError(f"`{{{name}:{kind}}}`: the kinds are `int` and `path`")
            expression, self._kinds[name] = _KINDS[kind]
            pattern += f"{re.escape(body[position : match.start()])}(?P<{name}>{expression})"
            position = match.end()
        if "{" in body[position:] or "}" in body[position:]:
            raise ValueError("the template has a brace without its pair")
        self._pattern = re.compile(pattern + re.escape(body[position:]), re.DOTALL)

    @property
    def names(self) -> tuple[str, ...]:
        """What it captures."""
        return tuple(self._kinds)

    def capture(self, path: str) -> dict[str, str | int | None]:
        """The parts of ``path``; each of them None where the path does not fit the template."""
        match = self._pattern.fullmatch(path)
        if match is None:
            return dict.fromkeys(self._kinds)
        return {name: kind(match[name]) for name, kind in self._kinds.items()}


def check_path_glob(pattern: str) -> None:
    """Raise `ValueError` where a glob over paths below a watch can match nothing, or more than it seems to."""
    if not pattern:
        raise ValueError("a glob is empty")
    if pattern.startswith("/"):
        raise ValueError(f"the glob {pattern!r} is relative to the watch: take the leading slash away")
    if ".." in pattern.split("/"):
        raise ValueError(f"the glob {pattern!r} would leave the watch by `..`")
    if _unclosed(pattern):
        raise ValueError(f"the glob {pattern!r} has a bracket or brace without its pair")
    try:
        expressions, _ = glob.translate(pattern, flags=FLAGS)
        for expression in expressions:
            re.compile(expression)
    except Exception as error:
        raise ValueError(f"the glob {pattern!r} cannot be used: {error}") from error


def check_folder_name(name: str) -> str:
    """``name`` if it is a plain directory name; raises `ValueError`."""
    if not name or "/" in name or name in {".", ".."} or "\0" in name or name.startswith(".sluice"):
        raise ValueError(f"{name!r} is not a name for a folder inside the watch: it has no slash, `.` or `..`")
    return name


def check_data_name(name: str) -> None:
    """Raise `ValueError` where ``name`` cannot stand in a file event's data beside the listener's own names."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a name for event data: lower-case letters, digits and `_`, a letter first")
    if name in RESERVED:
        raise ValueError(f"{name!r} is set by the listener itself: take another name")


def _unclosed(pattern: str) -> bool:
    bare = re.sub(r"\\.", "", pattern)
    without_sets = re.sub(r"\[[!^]?\]?[^\]]*\]", "", bare)
    return "[" in without_sets or without_sets.count("{") != without_sets.count("}")
