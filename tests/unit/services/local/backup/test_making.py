"""A backup is taken only as it was written."""

from __future__ import annotations

from pathlib import Path

import pytest

from events.errors import ConfigError
from services.local.backup.making import Manifest, measured


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    (tmp_path / "dump").write_bytes(b"abc")
    return Manifest.model_construct(files={"dump": measured(tmp_path / "dump")})  # type: ignore[call-arg]


def test_a_backup_as_it_was_written_is_taken(manifest: Manifest, tmp_path: Path) -> None:
    manifest.verify(tmp_path)


def test_a_changed_byte_is_found_though_the_size_is_the_same(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "dump").write_bytes(b"abd")
    with pytest.raises(ConfigError, match=r"dump is not what was written"):
        manifest.verify(tmp_path)


def test_a_file_that_is_missing_or_elsewhere_is_named(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "dump").unlink()
    manifest.files["../other"] = manifest.files["dump"]
    with pytest.raises(ConfigError) as caught:
        manifest.verify(tmp_path)
    assert "dump is missing" in str(caught.value)
    assert "'../other', which is outside" in str(caught.value)
