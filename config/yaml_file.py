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
        raise ConfigError(f"{path}: there is no such file — name another with --config or SLUICE_CONFIG")
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
