"""Finds the flows of a project: the files in its named folders, and its named modules."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from services.deployments.isolation import in_project

FOLDER: Final = "flows"
CONSTANT: Final = "DEPLOYMENT"
_NAMED: Final = 5
_MODULE: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True, slots=True)
class FlowCode:
    """A file with flows, which is imported by its path, or under the name of its module."""

    path: Path
    module: str | None = None

    def entrypoint(self, root: Path, attribute: str) -> str:
        """Prefect's entrypoint, relative to the project's folder."""
        return f"{self.module}.{attribute}" if self.module else f"{self.path.relative_to(root).as_posix()}:{attribute}"


def find_flow_code(
    root: Path, names: Sequence[str] | None, *, where: str, problems: list[str]
) -> tuple[list[FlowCode], list[str]]:
    """The files of the folders and modules called ``names``, each once, and what is to be said of others.

    Without ``names`` the folder ``flows`` is meant, which need not be there. A name that leads nowhere is added to
    ``problems``, after ``where``.
    """
    if names is None and not (root / FOLDER).is_dir():
        return [], [f"{root / FOLDER}: there is no such folder, so no deployment is registered"]
    found: dict[Path, FlowCode] = {}
    notes: list[str] = []
    for name in (FOLDER,) if names is None else names:
        at = Path(os.path.normpath(root / name))
        inside = at.is_relative_to(root)
        if inside and at.is_dir():
            codes, passed_over = _in_folder(at)
            notes += _told(at, passed_over)
        elif inside and at.is_file() and at.suffix == ".py":
            codes = [FlowCode(at)]
        elif _MODULE.fullmatch(name):
            codes = _of_module(root, name)
        else:
            codes = []
            problems.append(f"{where}: there is no folder {name!r} in {root}, nor a module of that name")
            continue
        if not codes and not at.is_dir():
            problems.append(f"{where}: neither a folder nor a module {name!r} can be found from {root}")
        for code in codes:
            found.setdefault(code.path.resolve(), code)
    return list(found.values()), notes


def flows_mention(root: Path, names: Sequence[str] | None, module: str) -> bool:
    """Whether a file of the folders and files called ``names`` mentions the module."""
    for at in (root / name for name in names or (FOLDER,)):
        for file in [at] if at.is_file() else at.rglob("*.py"):
            with suppress(OSError):
                if module.encode() in file.read_bytes():
                    return True
    return False


def _in_folder(folder: Path) -> tuple[list[FlowCode], list[str]]:
    """Return its files, those below it with flows, and the names of the others below it."""
    codes, others = [], []
    for path in _files_in(folder):
        inside = path.relative_to(folder)
        if len(inside.parts) == 1 or seems_to_hold_flows(path):
            codes.append(FlowCode(path))
        else:
            others.append(inside.as_posix())
    return codes, others


def _files_in(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*.py")):
        if not any(part.startswith(("_", ".")) for part in path.relative_to(folder).parts):
            yield path


def _told(folder: Path, passed_over: Sequence[str]) -> Iterator[str]:
    if passed_over:
        more = len(passed_over) - _NAMED
        names = ", ".join(passed_over[:_NAMED]) + (f" and {more} more" if more > 0 else "")
        fix = "where there is one, add `DEPLOYMENT = {}`; a helper's name begins with `_`"
        yield f"{folder}: not imported, as no flow is seen in their text: {names} — {fix}"


def _of_module(root: Path, name: str) -> list[FlowCode]:
    """Return the module's file; for a package, also those of its modules with flows."""
    (found,) = in_project(root, [partial(_locate, name)])
    if not found:
        return []
    codes = [FlowCode(Path(found["file"]), name)] if found["file"] else []
    for folder in map(Path, found["folders"]):
        for path in _files_in(folder):
            if seems_to_hold_flows(path):
                inside = path.relative_to(folder).with_suffix("").parts
                codes.append(FlowCode(path, ".".join((name, *inside))))
    package = bool(found["folders"])
    return [code for code in codes if not package or code.module != name or seems_to_hold_flows(code.path)]


def _locate(name: str) -> dict[str, Any] | None:
    try:
        spec = importlib.util.find_spec(name)
    except Exception:  # noqa: BLE001 - a package around it that cannot be imported
        return None
    if spec is None:
        return None
    return {"file": spec.origin if spec.has_location else None, "folders": list(spec.submodule_search_locations or ())}


def seems_to_hold_flows(path: Path) -> bool:
    """Whether the text makes something a flow with Prefect's ``flow``, or has a ``DEPLOYMENT``; it is not imported."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, ValueError):
        return False
    except SyntaxError:
        return True  # so that it is told
    nodes = list(ast.walk(tree))
    names = {"flow"}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "prefect":
            names |= {alias.asname for alias in node.names if alias.name == "flow" and alias.asname}
    if any(name == CONSTANT for name, _, _ in assignments(tree)):
        return True
    return any(last_name(maker) in names for node in nodes for maker in _makers(node))


def _makers(node: ast.AST) -> Sequence[ast.expr]:
    """What may make a flow there: the decorators of a function, or what is called."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return node.decorator_list
    return [node] if isinstance(node, ast.Call) else ()


def assignments(tree: ast.Module) -> Iterator[tuple[str, ast.expr, int]]:
    """The names that are assigned at top level, with value and line."""
    for node in tree.body:
        match node:
            case ast.Assign(targets=targets, value=value):
                yield from ((one.id, value, node.lineno) for one in targets if isinstance(one, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name), value=value) if value is not None:
                yield name, value, node.lineno


def last_name(node: ast.expr) -> str | None:
    """The last part of a dotted name, or of the name of what is called."""
    called = node.func if isinstance(node, ast.Call) else node
    return called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", None)
