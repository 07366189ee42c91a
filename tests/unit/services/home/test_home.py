"""The home belongs to one `sluice up` at a time, and says where its servers are."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from events.errors import ConfigError
from services.home.home import Home, RunningInstallation

RUNNING = RunningInstallation(
    pid=os.getpid(), redis_url="redis://127.0.0.1:1/0", prefect_api_url="http://x/api", api_url="http://y"
)


def test_a_second_process_is_refused_with_the_pid_of_the_first(tmp_path: Path, checkout: Path) -> None:
    with Home(tmp_path).locked():
        code = (
            "import sys\nfrom pathlib import Path\nfrom services.home.home import Home\n"
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
    home.write_running(RunningInstallation(pid=ended.pid, redis_url="r", prefect_api_url="p", api_url="a"))
    assert home.running() is None


def test_the_ui_is_where_prefect_is_told_that_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_UI_URL", "https://prefect.example/")
    assert RUNNING.prefect_ui_url == "https://prefect.example"


def test_a_home_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="SLUICE_HOME"), Home(tmp_path / "file" / "home").locked():
        pass


def modes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): stat.S_IMODE(path.lstat().st_mode) for path in [folder, *folder.rglob("*")]}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_a_home_is_private_under_any_umask(tmp_path: Path, umask: int) -> None:
    home = Home(tmp_path / "home")
    before = os.umask(umask)
    try:
        with home.locked():
            home.write_running(RUNNING)
            home.credentials()
            found = modes(tmp_path / "home")
    finally:
        os.umask(before)
    assert found == {".": 0o700, "lock": 0o600, "running.json": 0o600, "credentials.json": 0o600}


def test_a_home_that_others_could_enter_is_closed_with_everything_in_it_and_that_is_said(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("")
    outside.chmod(0o644)
    folder = tmp_path / "home"
    (folder / "prefect").mkdir(parents=True)
    (folder / "prefect" / "prefect.db").write_text("")
    (folder / "link").symlink_to(outside)
    for path in (folder, folder / "prefect", folder / "prefect" / "prefect.db"):
        path.chmod(0o777)
    assert "was open to other users (mode 777)" in (Home(folder).make_private() or "")
    assert modes(folder) == {".": 0o700, "prefect": 0o700, "prefect/prefect.db": 0o700, "link": 0o777}
    assert stat.S_IMODE(outside.stat().st_mode) == 0o644
    assert Home(folder).make_private() is None


def test_the_passwords_of_a_home_are_made_once_and_are_strong(tmp_path: Path) -> None:
    made = Home(tmp_path / "a").credentials()
    assert Home(tmp_path / "a").credentials() == made
    other = Home(tmp_path / "b").credentials()
    for name in ("prefect_auth_string", "redis_password", "api_token"):
        assert getattr(made, name) != getattr(other, name)
        assert len(getattr(made, name)) >= 43
        assert getattr(made, name) not in repr(made)


def test_processes_that_ask_for_the_passwords_at_once_get_the_same(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: home.credentials(), range(32)))
    assert len(set(found)) == 1
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["credentials.json"]


def test_passwords_that_cannot_be_read_are_an_error_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "credentials.json").write_text("{")
    with pytest.raises(ConfigError, match=r"credentials.json cannot be read .*: delete it"):
        Home(tmp_path).credentials()
