"""The project's YAML files, whose problems are problems of the configuration."""

from __future__ import annotations

from pathlib import Path

from events.errors import ConfigError
from sluice import yaml_file
from sluice.errors import UnreadableYaml
from sluice.yaml_file import LARGEST_FILE, Document, KeyPath

__all__ = ["LARGEST_FILE", "Document", "KeyPath", "parse_yaml", "read_yaml"]


def read_yaml(path: Path) -> Document:
    """`sluice.yaml_file.read_yaml`; raises `ConfigError`."""
    if not path.exists():
        fix = "`sluice init` makes a project here; --config or SLUICE_CONFIG names the file of another one"
        raise ConfigError(f"{path}: there is no such file — {fix}")
    try:
        return yaml_file.read_yaml(path)
    except UnreadableYaml as error:
        raise ConfigError(str(error)) from None


def parse_yaml(raw: bytes, path: Path) -> Document:
    """`sluice.yaml_file.parse_yaml`; raises `ConfigError`."""
    try:
        return yaml_file.parse_yaml(raw, path)
    except UnreadableYaml as error:
        raise ConfigError(str(error)) from None
