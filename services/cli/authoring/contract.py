"""`sluice contract`: drafts a contract from a data file, and tries one on a file without loading it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from config.project import load_project
from config.settings import load_settings
from services.cli.commands import Commands, tell_object
from services.cli.output import say, show_fields, show_json, show_line, show_rows, show_title, show_yaml
from services.cli.terminal.options import AsJson

app = Commands(help="Draft contracts of data files, and try them on files; loads nothing.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A data file.")]


@app.command()
def infer(
    file: File,
    *,
    delimiter: Annotated[str | None, typer.Option(help="Separator of fields; \\t for a tab.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Encoding of the text, such as cp1252.")] = None,
    header_row: Annotated[int | None, typer.Option(min=1, help="The line with the names of the columns.")] = None,
    no_header: Annotated[bool, typer.Option("--no-header", help="The file has no line with names.")] = False,
    sheet: Annotated[str | None, typer.Option(help="The sheet of a workbook.")] = None,
    row_tag: Annotated[str | None, typer.Option(help="The XML element that is a row.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print a draft contract for files like FILE, for the folder contracts/ beside the project file.

    The options say what FILE does not show by itself; they become part of the contract. Exit code 1 if FILE cannot be
    read.
    """
    dialect: dict[str, Any] = {
        "delimiter": delimiter.replace("\\t", "\t") if delimiter else None,
        "headerRows": [header_row] if header_row else None,
        "header": False if no_header else None,
        "sheetName": sheet,
    }
    known: dict[str, Any] = {"dialect": {name: value for name, value in dialect.items() if value is not None}}
    if encoding is not None:
        known["encoding"] = encoding
    if row_tag is not None:
        known["sluice"] = {"row_tag": row_tag}
    from sluice.loading.contracts.contract_files import read_contract
    from sluice.loading.trial import draft_for

    with _refusals(as_json=as_json):
        found = draft_for(file.resolve(), read_contract(known))
        (show_json if as_json else show_yaml)(found)


@app.command("test")
def try_(
    file: File,
    *,
    contract: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Use this instead of the project's contract for such files."),
    ] = None,
    table: Annotated[
        str | None, typer.Option(help="Use this instead of the table of the contract or of the file's name.")
    ] = None,
    database_url: Annotated[
        str | None, typer.Option(help="Use this instead of SLUICE_DATABASE_URL or the home's data.db.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what loading FILE would do, and load nothing; exit code 1 if it would be refused."""
    from sluice.loading.contracts.contract_files import contract_for, read_contract
    from sluice.loading.trial import try_file

    with _refusals(as_json=as_json):
        settings = load_settings()
        url = (
            database_url or os.environ.get("SLUICE_DATABASE_URL") or f"sqlite:///{settings.home.resolve() / 'data.db'}"
        )
        if contract is None:
            project = load_project(settings.config, home=settings.home)
            held = contract_for(file, [Path(one) for one in project.contract_sources])
        else:
            held = read_contract(str(contract))
        trial = try_file(file.resolve(), url, table=table, contract=held)
        if as_json:
            show_json(asdict(trial))
        else:
            _show(trial, held is not None)
        if not trial.would_load:
            raise typer.Exit(1)


def _show(trial: Any, has_contract: bool) -> None:
    show_line(f"{trial.file}: {trial.outcome}")
    if not has_contract:
        show_line("no contract is for files of this name: types are inferred from all values")
    for label, evidence in trial.evidence.items():
        show_title(label)
        show_fields(evidence)
    for note in trial.notes:
        show_line(note)
    if trial.columns:
        show_title("columns")
        show_rows(trial.columns, ("column", "type", "empty", "least", "most", "masked"), as_json=False)
    if trial.bad.examples:
        show_title(f"bad rows: {trial.bad.count} of {trial.bad.rows}")
        show_rows(trial.bad.examples, ("place", "column", "value", "reason"), as_json=False)


@contextmanager
def _refusals(*, as_json: bool) -> Iterator[None]:
    """Print why a file is refused and exit with 1; `SluiceError` and its exit codes are left to the command."""
    from sluice.errors import OverBudget
    from sluice.loading.errors import RefusedFile, TargetFailed

    try:
        yield
    except (RefusedFile, OverBudget, TargetFailed) as error:
        if as_json:
            tell_object("refused", str(error))
        else:
            say(f"refused: {error}")
        raise typer.Exit(1) from error
