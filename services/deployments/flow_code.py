"""Where the flows of a project stand: the files in the folders, and the modules, that it names."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from services.deployments.isolation import in_project

FOLDER: Final = "flows"
_MODULE: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True, slots=True)
class FlowCode:
    """A file with flows, which is imported by its path, or under the name of its module."""

    path: Path
    module: str | None = None

    def entrypoint(self, root: Path, attribute: str) -> str:
        """As Prefect has it, relative to the project's folder."""
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
    for name in (FOLDER,) if names is None else names:
        at = Path(os.path.normpath(root / name))
        inside = at.is_relative_to(root)
        if inside and at.is_dir():
            codes = [FlowCode(path) for path in _in_folder(at)]
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
    return list(found.values()), []


def _in_folder(folder: Path) -> Iterator[Path]:
    """Its files, and those below it that hold flows."""
    for path in sorted(folder.rglob("*.py")):
        inside = path.relative_to(folder).parts
        if not any(part.startswith(("_", ".")) for part in inside) and (len(inside) == 1 or seems_to_hold_flows(path)):
            yield path


def _of_module(root: Path, name: str) -> list[FlowCode]:
    """The module's file; that of a package, and those of its modules that hold flows."""
    (found,) = in_project(root, [partial(_locate, name)])
    if not found:
        return []
    codes = [FlowCode(Path(found["file"]), name)] if found["file"] else []
    for folder in map(Path, found["folders"]):
        for path in _in_folder(folder):
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
    """Whether the text decorates something with Prefect's ``flow``; the file is not imported."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return False
    names = {"flow"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "prefect":
            names |= {alias.asname for alias in node.names if alias.name == "flow" and alias.asname}
    return any(
        last_name(decorator) in names
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for decorator in node.decorator_list
    )


def last_name(node: ast.expr) -> str | None:
    """The last part of a dotted name, or of the name of what is called."""
    called = node.func if isinstance(node, ast.Call) else node
    return called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", None)
