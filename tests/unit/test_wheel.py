"""What users install: the client library and, out of the way of their own packages, the service."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.installed import Environment, build_wheel, plain_environment

GENERIC = ("config", "events", "flows", "services")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment.make(tmp_path_factory.mktemp("made") / "Größe 1", wheel, dependencies=True)


def test_the_wheel_holds_everything_under_one_top_level_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops - {"sluice"} == {name for name in tops if name.endswith(".dist-info")}
    held = set(names)
    assert {f"sluice/_service/{package}/__init__.py" for package in GENERIC} <= held
    assert {"sluice/py.typed", "sluice/_service/config/environments/production.yaml"} <= held
    assert "sluice/_service/services/local/templates/common/gitignore" in held
    assert "sluice/_service/config/sluice.yaml" not in held
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_the_wheel_holds_every_file_of_the_service(wheel: Path, checkout: Path) -> None:
    command = ["git", "ls-files", *GENERIC, "sluice"]
    listed = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    with zipfile.ZipFile(wheel) as archive:
        held = {name.removeprefix("sluice/_service/") for name in archive.namelist()}
    assert set(listed.stdout.splitlines()) - held == {"config/sluice.yaml"}


def test_no_generic_name_can_be_imported_where_the_wheel_is_installed(environment: Environment, tmp_path: Path) -> None:
    code = f"import importlib.util as u; print([n for n in {GENERIC} if u.find_spec(n)], u.find_spec('sluice').origin)"
    said = subprocess.run(
        [environment.python, "-c", code],
        cwd=tmp_path,
        env=plain_environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.startswith("[] ")
    assert str(environment.site_packages) in said


def test_the_command_tells_its_version_in_a_folder_whose_packages_have_its_names(
    environment: Environment, tmp_path: Path, checkout: Path
) -> None:
    for name in (*GENERIC, "sluice"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('this is the user')\n")
    answer = environment.sluice("--version", cwd=tmp_path)
    version = re.search(r'^version = "(.+)"', (checkout / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert answer.stdout.startswith(f"sluice {version[1]}, Python 3."), answer.stderr
    assert "Prefect 3." in answer.stdout


def test_without_the_service_the_command_says_what_to_install(wheel: Path, tmp_path: Path) -> None:
    bare = Environment.make(tmp_path / "bare", wheel, dependencies=False)
    answer = bare.sluice("up", cwd=tmp_path)
    assert answer.returncode == 2
    assert answer.stdout == ""
    (line,) = answer.stderr.splitlines()
    assert line.endswith("python -m pip install 'sluice-events[service]'")


def test_a_folder_without_a_project_is_told_of_init(environment: Environment, tmp_path: Path) -> None:
    answer = environment.sluice("check", cwd=tmp_path)
    assert answer.returncode == 2
    assert f"{tmp_path / 'sluice.yaml'}: there is no such file — `sluice init` makes a project here" in answer.stderr


def test_importing_the_client_library_needs_neither_prefect_nor_redis(checkout: Path) -> None:
    code = "import sys, sluice; print(sorted({m.partition('.')[0] for m in sys.modules} & {'prefect', 'redis', 'rq'}))"
    said = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


def test_nobody_is_told_to_install_the_other_project_of_that_name(checkout: Path) -> None:
    texts = [*checkout.glob("*.md"), *checkout.glob("docs/**/*.md"), *checkout.glob("s*/**/*.py")]
    wrong = re.compile(r"""pip install ['"]?sluice(?!-events)|uv tool install ['"]?sluice(?!-events)""")
    assert [str(path) for path in texts if wrong.search(path.read_text(encoding="utf-8"))] == []
