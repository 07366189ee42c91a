"""What `make` sets up in a checkout: an environment with the `sluice` command, or a sentence with what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.installed import plain_environment


@pytest.fixture
def small(tmp_path: Path, checkout: Path) -> Path:
    """A checkout that has what the launcher and `make` need."""
    made = tmp_path / "Größe 1" / "checkout"
    for file, text in {
        "services/__init__.py": "",
        "services/cli.py": "import sys\ndef main():\n    print(__file__, sys.argv[1:])\n    return 3\n",
        "sluice/__init__.py": "",
    }.items():
        (made / file).parent.mkdir(parents=True, exist_ok=True)
        (made / file).write_text(text, encoding="utf-8")
    (made / "requirements").mkdir()
    shutil.copy(checkout / "requirements" / "launcher.py", made / "requirements")
    shutil.copy(checkout / "Makefile", made)
    return made


def output(cwd: Path, *words: str | Path) -> tuple[int, str]:
    answer = subprocess.run(
        words, cwd=cwd, env=plain_environment(), capture_output=True, text=True, check=False, timeout=60
    )
    return answer.returncode, answer.stdout + answer.stderr


def test_the_command_works_by_a_link_and_after_the_checkout_has_moved(small: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", small / ".venv"], check=True)
    subprocess.run([small / ".venv/bin/python", small / "requirements/launcher.py"], check=True)
    assert output(tmp_path, small / ".venv/bin/sluice", "a b", "*") == (3, f"{small}/services/cli.py ['a b', '*']\n")
    moved = tmp_path / "moved"
    small.rename(moved)
    link = tmp_path / "link"
    link.symlink_to(moved / ".venv/bin/sluice")
    assert output(tmp_path, link) == (3, f"{moved}/services/cli.py []\n")
    code, said = output(tmp_path, moved / ".venv/bin/python", "-c", "import sluice; print(sluice.__file__)")
    assert (code, said) == (0, f"{moved}/.venv/lib/python3.{sys.version_info.minor}/site-packages/sluice/__init__.py\n")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 1", "is no Python 3.11, 3.12 or 3.13"),
        ('case "$*" in *venv*) mkdir -p .venv/bin; touch .venv/bin/python; exit 1;; esac; exit 0', "cannot make an"),
    ],
)
def test_a_wrong_python_is_one_sentence_and_leaves_nothing_behind(small: Path, script: str, said: str) -> None:
    wrong = small.parent / "wrong-python"
    wrong.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    wrong.chmod(0o755)
    link = small.parent.parent / "wrong"
    link.symlink_to(wrong)
    code, text = output(small, "make", "--no-print-directory", ".venv/bin/python", f"PYTHON={link}")
    assert code != 0
    assert said in text
    assert not os.path.lexists(small / ".venv")


def test_nothing_that_is_kept_in_git_is_ignored(checkout: Path) -> None:
    """Ignored files are left out of the wheel, and ruff does not look at them."""
    if not (checkout / ".git").exists():
        pytest.skip("this is no checkout of git")
    command = ["git", "-C", str(checkout), "ls-files", "--cached", "--ignored", "--exclude-standard"]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout == ""
