"""One flow file: its flows, and its ``DEPLOYMENT`` with the line of each key."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from prefect import Flow
from prefect.utilities.callables import parameter_schema
from prefect.utilities.importtools import load_script_as_module

from config.yaml_file import KeyPath
from events.errors import ConfigError
from services.deployments.flow_code import CONSTANT, FlowCode, assignments, last_name
from services.deployments.isolation import IMPORT_SECONDS, in_project
from services.deployments.misfits import misfits
from services.deployments.options import options_of
from services.executor.process.flow_loading import describe_failure

_NEAR: Final = 0.8


class LibraryMissing(Exception):
    """A flow file cannot be imported here, because a library is not installed."""


@dataclass(frozen=True, slots=True)
class FoundFlow:
    """A flow under a name of its file. ``own``: the file defines it, rather than importing it from elsewhere."""

    attribute: str
    line: int
    own: bool
    name: str
    description: str | None
    schema: Mapping[str, Any]
    """The JSON Schema of its parameters."""
    misfits: Mapping[str, list[tuple[KeyPath, str]]]
    """For each environment, what the options of the file say that does not fit this flow: key and reason."""


@dataclass(frozen=True, slots=True)
class FlowFile:
    """A flow file as it was read and imported."""

    code: FlowCode
    source: bytes
    flows: tuple[FoundFlow, ...]
    options: Mapping[str, Any]
    """The value of ``DEPLOYMENT``; empty without one."""
    lines: Mapping[KeyPath, int]

    @property
    def path(self) -> Path:
        """The file."""
        return self.code.path

    def where(self, key: KeyPath = ()) -> str:
        """``file:line: DEPLOYMENT.key`` of a key, or of the nearest one above it that the file has."""
        known = key
        while known and known not in self.lines:
            known = known[:-1]
        dotted = ".".join((CONSTANT, *map(str, key)))
        return f"{self.path}:{self.lines.get(known, 1)}: {dotted}"


def read_flow_files(codes: Iterable[FlowCode], root: Path) -> Iterator[FlowFile | LibraryMissing | ConfigError]:
    """Read the files of the project in ``root``, and import each in a process of its own; in order.

    A `ConfigError` has every problem of its file: of the syntax, of the form of ``DEPLOYMENT``, of the import.
    """
    parsed = [_parsed(code) for code in codes]
    sound = [one for one in parsed if isinstance(one, _Parsed)]
    found = in_project(root, [partial(_import, one) for one in sound])
    for one in parsed:
        yield one if isinstance(one, ConfigError) else _read(one, next(found))


def _parsed(code: FlowCode) -> _Parsed | ConfigError:
    """Return the syntax tree and options of a flow file, which is not executed, or every problem with it."""
    path = code.path
    try:
        source = path.read_bytes()
        tree = ast.parse(source, filename=str(path))
    except OSError as error:
        return ConfigError(f"{path}: it cannot be read: {error.strerror}")
    except SyntaxError as error:
        return ConfigError(f"{path}:{error.lineno or 1}: this is not Python: {error.msg}")
    except ValueError as error:  # null bytes
        return ConfigError(f"{path}:1: this is not Python: {error}")
    constant = _Constant(path)
    options = constant.read(tree)
    problems = [*constant.problems, *_serving(tree, path)]
    return ConfigError(*problems) if problems else _Parsed(code, source, tree, options, constant)


def _read(parsed: _Parsed, found: dict[str, Any] | None) -> FlowFile | LibraryMissing | ConfigError:
    """The file, with what its import found."""
    path, lines = parsed.code.path, parsed.constant.lines
    if found is None:
        return ConfigError(f"{path}: importing it ended the process, or took longer than {IMPORT_SECONDS:.0f} s")
    if "missing" in found:
        return LibraryMissing(f"{path}: it cannot be imported: {found['missing']}")
    if "problem" in found:
        return ConfigError(f"{path}: it cannot be imported: {found['problem']}")
    if found["changed"]:
        said = "it is changed while the file runs" if lines else "it is not assigned at the top of the file"
        fix = "write it once, at top level, as a dictionary of constants"
        return ConfigError(f"{path}:{lines.get((), 1)}: {CONSTANT}: {said} — {fix}")
    flows = [FoundFlow(**{**one, "misfits": _keyed(one["misfits"])}) for one in found["flows"]]
    return FlowFile(parsed.code, parsed.source, tuple(flows), parsed.options, lines)


def _import(parsed: _Parsed) -> dict[str, Any]:
    """Import the file in this process, which must end afterwards, and describe what is in it."""
    code = parsed.code
    try:
        module = importlib.import_module(code.module) if code.module else load_script_as_module(str(code.path))
        if getattr(module, CONSTANT, None) != parsed.constant.value:
            return {"changed": True}
        return {"changed": False, "flows": [asdict(one) for one in _flows(module, parsed.tree, parsed.options)]}
    except BaseException as error:  # noqa: BLE001 - whatever the file raises while it is imported, SystemExit too
        return {"missing" if _is_missing_library(error) else "problem": describe_failure(error)}


def _is_missing_library(error: BaseException | None) -> bool:
    """Whether a module is not there that is no part of the project."""
    while error is not None and not isinstance(error, ModuleNotFoundError):
        error = getattr(error, "user_exc", None) or error.__cause__
    if error is None or not error.name:
        return False
    top = error.name.partition(".")[0]
    return not any(Path(folder, name).exists() for folder in (".", "src") for name in (top, f"{top}.py"))


def _keyed(found: Mapping[str, Iterable[tuple[Iterable[str | int], str]]]) -> dict[str, list[tuple[KeyPath, str]]]:
    return {environment: [(tuple(key), what) for key, what in said] for environment, said in found.items()}


class _Constant:
    """Reads ``DEPLOYMENT`` from the syntax tree."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.problems: list[str] = []
        self.lines: dict[KeyPath, int] = {}
        self.value: Any = None

    def read(self, tree: ast.Module) -> Mapping[str, Any]:
        """Return the value of the module's constant DEPLOYMENT, or {}; problems are collected with their lines."""
        found: Mapping[str, Any] = {}
        for name, value, line in assignments(tree):
            if name != CONSTANT:
                self._suspect(name, value, line)
            elif () in self.lines:
                self._say(line, (), f"it stands there twice, first in line {self.lines[()]} — leave one")
            else:
                self.lines[()] = line
                if isinstance(value, ast.Dict):
                    found = self._mapping(value, ())
                    self.value = ast.literal_eval(value) if not self.problems else None
                else:
                    kind = "a list" if isinstance(value, ast.List) else f"`{ast.unparse(value)[:60]}`"
                    fix = "write a dictionary of constants, with its keys in quotes"
                    self._say(line, (), f"{kind} does not fit — {fix}")
        return found

    def _suspect(self, name: str, value: ast.expr, line: int) -> None:
        near = SequenceMatcher(None, name.upper(), CONSTANT).ratio() >= _NEAR
        if near and isinstance(value, ast.Dict):
            self.problems.append(f"{self._path}:{line}: {name}: it tells nothing — did you mean `{CONSTANT}`?")

    def _literal(self, node: ast.expr, key: KeyPath) -> Any:
        """Return the value of a literal in the source, and remember the line of its key for messages.

        What is not a literal is a problem: to know its value the file would have to be executed, in a process that has
        the rights and the passwords of Sluice.
        """
        self.lines.setdefault(key, node.lineno)
        match node:
            case ast.Dict():
                return self._mapping(node, key)
            case ast.List() | ast.Tuple():
                return [self._literal(item, (*key, index)) for index, item in enumerate(node.elts)]
        try:
            value = ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            shown = ast.unparse(node)[:60]
            self._say(node.lineno, key, f"`{shown}` is not a constant — write the value: the file is not run for it")
            return None
        if not isinstance(value, str | int | float | bool | None) or value in {float("inf"), float("-inf")}:
            self._say(node.lineno, key, f"{value!r} does not fit — write what JSON knows: text, number, list, mapping")
        return value

    def _mapping(self, node: ast.Dict, key: KeyPath) -> dict[str, Any]:
        """Return the mapping of a dictionary in the source; keys that are not literals or come twice are problems."""
        found: dict[str, Any] = {}
        for name_node, value_node in zip(node.keys, node.values, strict=True):
            if not (isinstance(name_node, ast.Constant) and isinstance(name_node.value, str)):
                line = (name_node or value_node).lineno
                self._say(line, key, "a key is not text in quotes — write each key as a text")
                continue
            name = name_node.value
            inside = (*key, name)
            if name in found:
                self._say(name_node.lineno, inside, f"the key stands there twice, first in line {self.lines[inside]}")
                continue
            self.lines[inside] = name_node.lineno
            found[name] = self._literal(value_node, inside)
        return found

    def _say(self, line: int, key: KeyPath, what: str) -> None:
        self.problems.append(f"{self._path}:{line}: {'.'.join((CONSTANT, *map(str, key)))}: {what}")


@dataclass(frozen=True, slots=True)
class _Parsed:
    """A file that is Python and can be imported."""

    code: FlowCode
    source: bytes
    tree: ast.Module
    options: Mapping[str, Any]
    constant: _Constant


def _serving(tree: ast.Module, path: Path) -> Iterator[str]:
    """Calls that would never return, where the file is imported."""
    for node in tree.body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and last_name(node.value) == "serve":
            yield (
                f"{path}:{node.lineno}: `{ast.unparse(node.value.func)}` never returns when the file is imported — "
                'put it under `if __name__ == "__main__":`'
            )


def _flows(module: ModuleType, tree: ast.Module, options: Mapping[str, Any]) -> Iterator[FoundFlow]:
    """Each flow once, under the first name that the file itself gives it; names that begin with `_` are left out."""
    bound, imported = _names(tree.body)
    found = [(name, value) for name, value in vars(module).items() if isinstance(value, Flow)]
    own = [(name, value) for name, value in found if name in bound or _defined_in(value, module)]
    owned = {id(value) for _, value in own}
    seen: set[int] = set()
    for name, value in sorted(own, key=lambda one: bound.get(one[0], 0)):
        if id(value) not in seen:
            seen.add(id(value))
            if not name.startswith("_"):
                yield _described(name, bound.get(name, 1), True, value, options)
    for name, value in found:
        if id(value) not in owned | seen and not name.startswith("_"):
            seen.add(id(value))
            yield _described(name, imported.get(name, 1), False, value, options)


def _described(name: str, line: int, own: bool, flow: Flow[..., Any], options: Mapping[str, Any]) -> FoundFlow:
    schema = parameter_schema(flow).model_dump_for_openapi()
    wrong = {environment: list(misfits(said, flow, schema)) for environment, said in options_of(options)[0].items()}
    return FoundFlow(name, line, own, flow.name, flow.description, schema, wrong)


def _defined_in(flow: Flow[..., Any], module: ModuleType) -> bool:
    return getattr(flow.fn, "__module__", None) == module.__name__


def _names(body: Iterable[ast.stmt]) -> tuple[dict[str, int], dict[str, int]]:
    """The names that the module's own statements give, and those that imports give, with their lines."""
    bound: dict[str, int] = {}
    imported: dict[str, int] = {}
    for node in _statements(body):
        match node:
            case ast.Import() | ast.ImportFrom():
                for alias in node.names:
                    imported.setdefault(alias.asname or alias.name.partition(".")[0], node.lineno)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                bound.setdefault(node.name, node.lineno)
            case ast.Assign(targets=targets):
                names = [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
                bound |= {name: node.lineno for name in names if name not in bound}
            case ast.AnnAssign(target=ast.Name(id=name)):
                bound.setdefault(name, node.lineno)
    return bound, imported


def _statements(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """The statements of the module's own scope, those inside ``if``, ``try``, ``with`` and loops included."""
    for node in body:
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.expr):
            yield from _statements(ast.iter_child_nodes(node))
