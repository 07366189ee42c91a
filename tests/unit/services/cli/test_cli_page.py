"""docs/cli.md shows every command, and none that there is not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

from config.settings import CHECKOUT
from services.cli import app

PAGE = (CHECKOUT / "docs" / "cli.md").read_text(encoding="utf-8")


def commands(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if not hasattr(command, "list_commands"):
        yield words
        return
    ctx = typer.Context(command)
    for name in command.list_commands(ctx):
        yield from commands(command.get_command(ctx, name), (*words, name))


def test_the_page_has_an_example_of_every_command_and_of_no_other() -> None:
    there = {" ".join(words) for words in commands(typer.main.get_command(app), ())}
    shown = [line.removeprefix("$ sluice ") for line in PAGE.splitlines() if line.startswith("$ sluice ")]
    missing = [command for command in there if not any(re.match(rf"{command}( |$)", line) for line in shown)]
    assert not missing
    unknown = [line for line in shown if not any(re.match(rf"{command}( |$)", line) for command in there)]
    assert unknown == ["--version"]
