"""Checks the contracts of a project, in its file and in the folder beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from config.faults import describe
from sluice.errors import UnreadableYaml
from sluice.loading.contracts.contract import Contract
from sluice.loading.contracts.contract_files import ENDINGS, WrittenContract, contracts_in
from sluice.yaml_file import Document, read_yaml


def contract_problems(project: Document, folder: Path) -> Iterator[str]:
    """Return each problem as ``file:line: key: what is wrong — what to do``."""
    if isinstance(project.data, dict):
        inline = project.data.get("contracts")
        if inline is not None and not isinstance(inline, list):
            yield f"{project.where(('contracts',))}: contracts: it must be a list — begin each contract with `- path:`"
    found: list[WrittenContract] = []
    if isinstance(project.data, dict) and "contracts" in project.data:
        found += contracts_in(project)
    for file in sorted(one for one in folder.glob("*") if one.suffix in ENDINGS) if folder.is_dir() else ():
        try:
            document = read_yaml(file)
        except UnreadableYaml as error:
            yield str(error)
            continue
        yield from document.problems
        found += contracts_in(document)
    taken: dict[str, str] = {}
    for one in found:
        yield from _problems(one)
        if one.path is None:
            yield f"{one.where}: path: it is missing — name the files that the contract is for, such as `orders-*.csv`"
        elif one.path in taken:
            yield f"{one.where}: path: {one.path!r} is that of the contract in {taken[one.path]} too"
        else:
            taken[one.path] = one.where


def _problems(one: WrittenContract) -> Iterator[str]:
    try:
        contract = Contract.model_validate(one.data)
    except ValidationError as error:
        for key, said in describe(error, Contract):
            yield f"{one.document.where((*one.key, *key))}: {'.'.join(map(str, key))}: {said}"
        return
    # It costs a quarter of a second, for projects with contracts.
    from sluice.loading.columns.load_column import check_fields

    for key, said in [*contract.problems(), *check_fields(contract)]:
        yield f"{one.document.where((*one.key, *key))}: {'.'.join(map(str, key))}: {said}"
