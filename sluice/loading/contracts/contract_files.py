"""Finds contracts by the name of a file: in YAML files with one contract each, or several in a project file."""

from __future__ import annotations

import fnmatch
import json
import os
import posixpath
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from sluice.errors import UnreadableYaml
from sluice.loading.contracts.contract import Contract
from sluice.loading.errors import RefusedFile
from sluice.loading.names import as_dropped, original_name, without_packing
from sluice.protocol import CONTRACTS_VARIABLE
from sluice.yaml_file import Document, KeyPath, read_yaml

ENDINGS: Final = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class WrittenContract:
    """A contract in a YAML file, not validated yet."""

    document: Document
    key: KeyPath
    """Its path in the document."""

    @property
    def data(self) -> Any:
        found = self.document.data
        for part in self.key:
            found = found[part]
        return found

    @property
    def where(self) -> str:
        """The place of the contract as ``file:line``."""
        return self.document.where(self.key)

    @property
    def path(self) -> str | None:
        """The glob of the files that it is for; None if it has none or is not valid so far."""
        found = self.data.get("path") if isinstance(self.data, Mapping) else None
        return found if isinstance(found, str) else None

    def parsed(self) -> Contract:
        """Return the contract. Raises `RefusedFile` with its first problem and line, and the number of others."""
        if self.document.problems:
            raise RefusedFile(self.document.problems[0])
        try:
            contract = Contract.model_validate(self.data)
        except ValidationError as error:
            first, *others = error.errors(include_url=False)
            key = first["loc"]
            named = ".".join(map(str, key))
            more = f" (and {len(others)} more: `sluice check` tells them)" if others else ""
            where = self.document.where((*self.key, *key))
            raise RefusedFile(f"the contract in {where} cannot be used: {named}: {first['msg']}{more}") from error
        for key, said in contract.problems():
            raise RefusedFile(f"the contract in {self.document.where((*self.key, *key))} cannot be used: {said}")
        return contract


def project_contracts() -> list[Path]:
    """Return the files and folders with the contracts of the project that this run belongs to.

    The executor names them in an environment variable. Raises `RefusedFile` if its value has another form.
    """
    try:
        found = json.loads(os.environ.get(CONTRACTS_VARIABLE, "[]"))
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise RefusedFile(f"{CONTRACTS_VARIABLE} is not a JSON list of files and folders")
    return [Path(one) for one in found]


def contract_for(file: str | os.PathLike[str], sources: Sequence[Path]) -> Contract | None:
    """Return the contract whose ``path`` fits the file's name; None if there is none.

    ``sources`` are YAML files, or folders of them. Letter case and the ending of a packing do not count. Raises
    `RefusedFile` if two fit, or the one that fits is invalid.
    """
    name = os.path.basename(os.fspath(file))  # noqa: PTH119 - only a name
    found = [one for one in written_contracts(sources) if one.path is not None and fits(one.path, name)]
    if len(found) > 1:
        places = " and ".join(one.where for one in found)
        raise RefusedFile(f"several contracts are for this file, in {places}: change the `path` of all but one")
    return found[0].parsed() if found else None


def read_contract(said: str | Mapping[str, Any]) -> Contract:
    """Return the contract in a YAML file, or in a mapping as YAML is read. Raises `RefusedFile`."""
    if isinstance(said, str):
        return WrittenContract(read_contract_file(Path(said)), ()).parsed()
    return WrittenContract(Document(Path("the parameter"), b"", dict(said), {}), ()).parsed()


def fits(pattern: str, name: str) -> bool:
    """Return whether a contract with this ``path`` is for a file of this name."""
    name = as_dropped(original_name(name) or name)
    wanted = _plain(pattern)
    return any(fnmatch.fnmatchcase(_plain(one), wanted) for one in (name, without_packing(name)))


def written_contracts(sources: Sequence[Path]) -> Iterator[WrittenContract]:
    """Yield all contracts in files and folders. Raises `RefusedFile` for a file that cannot be read."""
    for source in sources:
        for file in _files(source):
            yield from contracts_in(read_contract_file(file))


def _files(source: Path) -> Sequence[Path]:
    if source.is_dir():
        return sorted(one for one in source.glob("*") if one.suffix in ENDINGS)
    return [source] if source.exists() or source.suffix in ENDINGS else []  # there need be no folder of contracts


def contracts_in(document: Document) -> list[WrittenContract]:
    """Return the contracts of one file: those under ``contracts``, or the file itself."""
    data = document.data
    if isinstance(data, Mapping) and "contracts" in data:
        inner = data["contracts"]
        return [
            WrittenContract(document, ("contracts", n)) for n in range(len(inner) if isinstance(inner, list) else 0)
        ]
    if isinstance(data, Mapping) and {"sources", "rules"} & data.keys():
        return []  # a project without contracts of its own
    return [WrittenContract(document, ())]


def read_contract_file(file: Path) -> Document:
    """Return the document of a file. Raises `RefusedFile` if it cannot be read."""
    try:
        return read_yaml(file)
    except UnreadableYaml as error:
        raise RefusedFile(str(error)) from error


def _plain(name: str) -> str:
    shown = name.encode(errors="surrogateescape").decode(errors="replace")
    return unicodedata.normalize("NFC", posixpath.basename(shown)).casefold()
