"""`sluice schema`: the JSON Schema of project files."""

from __future__ import annotations

from config.project import project_schema
from services.cli.output import show_json


def schema() -> None:
    """Print the JSON Schema of the project file, for editors to complete and check."""
    show_json(project_schema())
