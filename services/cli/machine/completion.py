"""`sluice completion`: prints the script with which a shell completes commands and options."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import typer

from services.cli.output import show_script

VARIABLE: Final = "_SLUICE_COMPLETE"
"""Environment variable that the shell's script sets when it asks for completions."""


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="The shell.")],
) -> None:
    """Print the completion script of a shell: `eval "$(sluice completion bash)"` in its start-up file."""
    from typer._completion_shared import get_completion_script

    show_script(get_completion_script(prog_name="sluice", complete_var=VARIABLE, shell=shell))


def answer_shell() -> None:
    """Register typer's completion, so that the call of the command answers the shell and exits."""
    from typer._completion_classes import completion_init

    completion_init()
