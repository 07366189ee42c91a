"""The home belongs to one `sluice up` at a time, and says where its servers are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from events.errors import ConfigError
from services.home import Home, Running

RUNNING = Running(
    pid=os.getpid(), redis_url="redis://127.0.0.1:1/0", prefect_api_url="http://x/api", api_url="http://y"
)


def test_a_second_process_is_refused_with_the_pid_of_the_first(tmp_path: Path, checkout: Path) -> None:
    with Home(tmp_path).locked():
        code = (
            "import sys\nfrom pathlib import Path\nfrom services.home import Home\n"
            "from events.errors import ConfigError\n"
            "try:\n    with Home(Path(sys.argv[1])).locked(): pass\nexcept ConfigError as error:\n    print(error)\n"
        )
        said = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], cwd=checkout, capture_output=True, text=True, check=True
        ).stdout
    assert f"pid {os.getpid()}" in said


def test_the_lock_goes_with_its_process(tmp_path: Path) -> None:
    with Home(tmp_path).locked():
        pass
    with Home(tmp_path).locked():
        assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_the_note_of_a_running_service_is_read_back_and_ends_with_it(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with home.locked():
        assert home.running() is None
        home.write_running(RUNNING)
        assert home.running() == RUNNING
        assert RUNNING.prefect_ui_url == "http://x"
    assert home.running() is None


def test_the_note_of_a_killed_service_is_void(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    home = Home(tmp_path)
    home.write_running(Running(pid=ended.pid, redis_url="r", prefect_api_url="p", api_url="a"))
    assert home.running() is None


def test_the_ui_is_where_prefect_is_told_that_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_UI_URL", "https://prefect.example/")
    assert RUNNING.prefect_ui_url == "https://prefect.example"


def test_a_home_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="SLUICE_HOME"), Home(tmp_path / "file" / "home").locked():
        pass
