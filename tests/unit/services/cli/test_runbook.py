"""docs/operations.md answers each of an operator's questions with a command that there is."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer

from config.settings import CHECKOUT
from services.cli import app

RUNBOOK = (CHECKOUT / "docs" / "operations.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"`sluice ([a-z][^`]*)`", RUNBOOK)))


def fault(command: Any, words: list[str]) -> str | None:
    """What of the command line there is not."""
    while words and hasattr(command, "list_commands"):
        command = command.get_command(typer.Context(command), words.pop(0))
        if command is None:
            return "the command"
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    unknown = [word for word in words if word.startswith("--") and word not in known]
    return f"the options {unknown}" if unknown else None


@pytest.mark.parametrize("line", COMMANDS)
def test_each_command_of_the_runbook_is_one(line: str) -> None:
    assert fault(typer.main.get_command(app), line.split()) is None


def test_there_are_ten_questions_each_with_one_command() -> None:
    table = RUNBOOK.partition("## Ten questions")[2].partition("\n## ")[0]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == 10
    assert [row[0] for row in rows if not row[1].startswith("`sluice ")] == []
