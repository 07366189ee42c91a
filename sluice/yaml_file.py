"""YAML files read so that every problem can name its line: YAML 1.2 scalars, no repeated keys, bounded size."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from sluice.display import visible
from sluice.errors import UnreadableYaml

KeyPath = tuple[str | int, ...]

LARGEST_FILE: Final = 4 * 1024 * 1024
_MOST_VALUES: Final = 500_000
_DEEPEST: Final = 50

_STRING: Final = "tag:yaml.org,2002:str"

# YAML 1.2's scalars. YAML 1.1 reads the key `on` as true, `12:30` as 750 and `2026-01-01` as a date.
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER: Final = re.compile(r"[-+]?[0-9]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Document:
    """A file's data, the line of each part of it (from 1), and what was wrong on the way."""

    path: Path
    raw: bytes
    data: Any
    lines: dict[KeyPath, int]
    problems: tuple[str, ...] = ()

    def where(self, key: KeyPath) -> str:
        """``file:line`` of the part under ``key``, or of the nearest part above it that the file has."""
        while key and key not in self.lines:
            key = key[:-1]
        return f"{self.path}:{self.lines.get(key, 1)}"


def read_yaml(path: Path) -> Document:
    """The file as mappings, lists, texts, numbers, booleans and nulls; keys are always text.

    Repeated keys and what JSON does not know are in ``problems``. Raises `UnreadableYaml` for a file that cannot be
    read at all.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise UnreadableYaml(f"{path}: there is no such file") from None
    except OSError as error:
        raise UnreadableYaml(f"{path}: it cannot be read: {error.strerror}") from error
    if len(raw) > LARGEST_FILE:
        raise UnreadableYaml(f"{path}: the file has {len(raw)} bytes; at most {LARGEST_FILE} are read")
    return parse_yaml(raw, path)


def parse_yaml(raw: bytes, path: Path) -> Document:
    """`read_yaml` of a text; ``path`` is only named."""
    loader: _Loader | None = None
    try:
        loader = _Loader(raw)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise UnreadableYaml(f"{path}:{line}: this is not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UnreadableYaml(
            f"{path}: this is not YAML: {str(error).splitlines()[0] if str(error) else error!r}"
        ) from None
    finally:
        if loader is not None:
            loader.dispose()
    reader = _Reader(path)
    data = None if node is None else reader.value(node, ())
    return Document(path, raw, data, reader.lines, tuple(reader.problems))


def write_yaml(value: Any) -> str:
    """A document that `parse_yaml` reads as ``value``, in which no character is hidden."""
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    if visible(text, lines=True) != text:
        text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=False, width=100)
        text = re.sub(r"\\(u[0-9A-F]{4}|U[0-9A-F]{8}|.)", lambda found: found[0][:2] + found[0][2:].lower(), text)
    return text


class _Dumper(yaml.SafeDumper):
    """Quotes text that would be read as something else, by YAML 1.1 or 1.2."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """A text."""
        return self.represent_scalar(_STRING, text, style=None if _plain(text) == text else "'")


_Dumper.add_representer(str, _Dumper.represent_text)


class _Loader(yaml.SafeLoader):
    """Leaves plain scalars as the text they are."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML declares it without ClassVar


@dataclass(slots=True)
class _Reader:
    path: Path
    lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    count: int = 0

    def value(self, node: yaml.Node, key: KeyPath) -> Any:
        self.count += 1
        if self.count > _MOST_VALUES or len(key) > _DEEPEST:
            raise UnreadableYaml(
                f"{self._at(node)}: the file holds too much, or nests too deeply (anchors count each time)"
            )
        self.lines.setdefault(key, node.start_mark.line + 1)
        match node:
            case yaml.MappingNode():
                return self._mapping(node, key)
            case yaml.SequenceNode():
                return [self.value(item, (*key, index)) for index, item in enumerate(node.value)]
            case yaml.ScalarNode():
                return self._scalar(node)
        return None

    def _mapping(self, node: yaml.MappingNode, key: KeyPath) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name_node, value_node in node.value:
            if not isinstance(name_node, yaml.ScalarNode):
                self.problems.append(f"{self._at(name_node)}: a key must be text (quote it if it is a template)")
                continue
            name = str(name_node.value)
            inside = (*key, name)
            if name == "<<" and name_node.style is None:
                self.problems.append(
                    f"{self._at(name_node)}: merge keys (`<<`) are not read: use an anchor for a value"
                )
                continue
            if name in found:
                first = self.lines[inside]
                self.problems.append(
                    f"{self._at(name_node)}: the key {name!r} stands there twice, first in line {first}"
                )
                continue
            self.lines[inside] = name_node.start_mark.line + 1
            found[name] = self.value(value_node, inside)
        return found

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text = str(node.value)
        if node.tag != _STRING:
            self.problems.append(f"{self._at(node)}: the tag {node.tag!r} is not read: leave it out")
        return text if node.style is not None else _plain(text)

    def _at(self, node: yaml.Node) -> str:
        return f"{self.path}:{node.start_mark.line + 1}"


def _plain(text: str) -> Any:
    if text in _NULL:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return int(text) if len(text) < 20 else text  # noqa: PLR2004 - a longer one is no 64-bit number but an id
    if _FLOAT.fullmatch(text):
        number = float(text)
        return number if abs(number) != float("inf") else text
    return text
