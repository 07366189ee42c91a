"""A fork of the warm interpreter is the process that a fresh interpreter would be."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.warm import run_module, start_module

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each is an interpreter of its own")


def test_it_has_the_words_the_environment_and_the_folder_that_it_is_given(tmp_path: Path) -> None:
    done = run_module("tests.support.forked", "a", "b c", env={"MINE": "yes"}, cwd=tmp_path)
    said = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (7, "")
    assert (said["arguments"], said["environment"], said["folder"]) == (["a", "b c"], {"MINE": "yes"}, str(tmp_path))
    assert said["session"] == said["pid"]
    assert set(said["descriptors"]) <= {"0", "1", "2", "3"}, "the fourth is the listing's own"
    assert all(said["handlers"])


def test_it_has_imported_prefect_and_knows_the_settings_of_its_own_environment() -> None:
    env = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_HOME": "/nowhere"}
    said = json.loads(run_module("tests.support.forked", env=env).stdout)
    assert (said["imported"], said["server"]) == (True, env["PREFECT_API_URL"])


def test_how_it_ended_is_told_a_signal_as_minus_its_number() -> None:
    process = start_module("tests.support.forked", "stay", stdout=subprocess.PIPE)
    assert process.stdout
    with process.stdout:
        assert process.stdout.readline()
        assert process.poll() is None
        process.kill()
        assert process.wait(60) == process.poll() == -signal.SIGKILL
