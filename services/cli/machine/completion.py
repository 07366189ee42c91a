"""`sluice completion`: what a shell needs to complete the command."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import typer

from services.cli.output import show_script

VARIABLE: Final = "_SLUICE_COMPLETE"
"""Set by the shell when it asks for completions."""


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="The shell that is to complete.")],
) -> None:
    """Print what makes a shell complete `sluice`: `eval "$(sluice completion bash)"` in its start-up file."""
    from typer._completion_shared import get_completion_script

    show_script(get_completion_script(prog_name="sluice", complete_var=VARIABLE, shell=shell))


def answer_shell() -> None:
    """Make ready for the question of a shell, which the command then answers."""
    from typer._completion_classes import completion_init

    completion_init()
