"""What flow files declare, and every fault of a ``DEPLOYMENT`` with its file, line, key and fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from events.errors import ConfigError
from services.deployments.declared import Declarations, read_declarations
from tests.unit.services.deployments.faults import faults

FLOW = "from prefect import flow\n\n@flow\ndef main(size: int = 1): ...\n"


def names(declarations: Declarations) -> dict[str, str]:
    return {one.flow: one.body["entrypoint"] for one in declarations.deployments}


class TestADeployment:
    def test_has_the_flow_s_parameters_and_description(self, write, read, tmp_path):
        write(
            "plain_of_tests.py",
            '''
            from prefect import flow

            @flow(name="load-it")
            def main(path: str, rows: int = 5):
                """Load a file."""
            ''',
        )
        (one,) = read().deployments
        assert one.name == "load-it/default"
        assert one.body["entrypoint"] == "flows/plain_of_tests.py:main"
        assert one.body["path"] == str(tmp_path)
        assert one.body["tags"] == ["sluice"]
        overview = "[Overview of Sluice](/v2/artifacts/key/sluice-overview)"
        assert one.body["description"] == f"Load a file.\n\n{overview}"
        assert one.body["work_pool_name"] is None
        assert one.signature.needs == ["path"]

    def test_takes_schedules_limits_and_job_variables_from_the_file(self, write, read):
        write(
            "tuned_of_tests.py",
            """
            from prefect import flow

            DEPLOYMENT = {
                "cron": "0 3 * * *", "timezone": "Europe/Berlin", "concurrency_limit": 2, "priority": "high",
                "memory_mb": 512, "time_seconds": 60, "on_lost": "restart", "tags": ["nightly"],
                "job_variables": {"env": {"A": "b"}},
                "environments": {"production": {"cron": "0 4 * * *"}},
            }

            @flow
            async def main(): ...
            """,
        )
        (one,) = read("production").deployments
        assert one.body["schedules"] == [
            {"schedule": {"cron": "0 4 * * *", "timezone": "Europe/Berlin"}, "active": True}
        ]
        assert one.body["concurrency_limit"] == 2
        assert one.body["tags"] == ["nightly", "sluice"]
        assert one.body["job_variables"] == {
            "env": {"A": "b"},
            "sluice_priority": "high",
            "sluice_memory_mb": 512,
            "sluice_time_seconds": 60,
            "sluice_on_lost": "restart",
        }

    def test_for_a_work_pool_has_nothing_of_the_executor_s_and_says_where_the_code_is(self, write, read, tmp_path):
        write("here_of_tests.py", "DEPLOYMENT = {'work_pool': 'a', 'job_variables': {'image': 'x:1'}}\n" + FLOW)
        step = {"prefect.deployments.steps.git_clone": {"repository": "https://example.com/flows.git"}}
        production = {"environments": {"production": {"work_pool": "b", "pull": [step]}}}
        write("there_of_tests.py", f"DEPLOYMENT = {production}\n" + FLOW.replace("main", "there"))
        bodies = {one.flow: one.body for one in read("production").deployments}
        entered = {"prefect.deployments.steps.set_working_directory": {"directory": str(tmp_path)}}
        wanted = ("work_pool_name", "pull_steps", "job_variables")
        assert [bodies["main"][name] for name in wanted] == ["a", [entered], {"image": "x:1"}]
        assert [bodies["there"][name] for name in wanted] == ["b", [step], {}]
        bodies = {one.flow: one.body for one in read("development").deployments}
        assert [bodies["there"][name] for name in wanted] == [None, None, {}]


class TestAFlowIsFound:
    @pytest.mark.parametrize(
        "source",
        [
            "from prefect import flow as prefect_flow\n@prefect_flow(name='x')\ndef main(): ...",
            "import prefect as p\n@p.flow(name='x')\ndef main(): ...",
            "from prefect import flow\ndef work(): ...\nmain = flow(work, name='x')",
            "from prefect import flow\nimport os\nmain = flow(os.getcwd, name='x')",
            "from prefect import flow\nif True:\n    @flow(name='x')\n    def main(): ...",
            "from prefect import flow\ndef mine(f):\n    return flow(f, name='x')\n@mine\ndef main(): ...",
            "from decorators_of_tests import step\n@step\ndef main(): ...",
            "from package_of_tests import main",
            "import package_of_tests\nmain = package_of_tests.main",
        ],
    )
    def test_however_it_is_made(self, write, read, tmp_path, monkeypatch, source):
        (tmp_path / "decorators_of_tests.py").write_text(
            "from prefect import flow\ndef step(f):\n    return flow(f, name='x')\n", encoding="utf-8"
        )
        (tmp_path / "package_of_tests.py").write_text(
            "from prefect import flow\n@flow(name='x')\ndef main(): ...\n", encoding="utf-8"
        )
        write("made_of_tests.py", source)
        assert names(read()) == {"x": "flows/made_of_tests.py:main"}

    def test_once_where_it_has_two_names(self, write, read):
        write("twice_of_tests.py", FLOW.replace("@flow", "@flow(name='x')") + "again = main\n")
        assert names(read()) == {"x": "flows/twice_of_tests.py:main"}

    def test_in_the_file_that_defines_it_and_not_in_one_that_calls_it(self, write, read):
        write("a_caller_of_tests.py", "from b_called_of_tests import main\n" + FLOW.replace("main", "outer"))
        write("b_called_of_tests.py", FLOW)
        declarations = read()
        assert names(declarations) == {
            "outer": "flows/a_caller_of_tests.py:outer",
            "main": "flows/b_called_of_tests.py:main",
        }
        assert declarations.notes == ()

    def test_in_a_folder_below(self, write, read, tmp_path):
        write("sub/nested_of_tests.py", FLOW.replace("import flow", "import flow as f").replace("@flow", "@f"))
        write("sub/made_of_tests.py", "from prefect import flow\ndef work(): ...\nmain = flow(work, name='made')\n")
        (tmp_path / "package_of_tests.py").write_text(FLOW.replace("@flow", "@flow(name='far')"), encoding="utf-8")
        write("sub/far_of_tests.py", "from package_of_tests import main\nDEPLOYMENT = {'tags': ['far']}\n")
        write("sub/plain_of_tests.py", "raise RuntimeError('a module without flows is not imported')\n")
        write("sub/_private_of_tests.py", FLOW)
        declarations = read()
        assert names(declarations) == {
            "main": "flows/sub/nested_of_tests.py:main",
            "made": "flows/sub/made_of_tests.py:main",
            "far": "flows/sub/far_of_tests.py:main",
        }
        (note,) = declarations.notes
        assert note.startswith(
            f"{tmp_path}/flows: not imported, as no flow is seen in their text: sub/plain_of_tests.py"
        )

    def test_and_one_below_that_is_no_python_is_told(self, write, read, tmp_path):
        """Else its deployment would be removed as one whose flow is gone."""
        write("sub/broken_of_tests.py", FLOW + "def broken(:\n")
        (problem,) = faults(read, tmp_path)
        assert problem.startswith("sub/broken_of_tests.py:5: this is not Python")

    def test_unless_its_name_begins_with_an_underscore(self, write, read):
        write("inner_of_tests.py", FLOW + "\n@flow\ndef _inner(path: str): ...\n")
        write("_helpers_of_tests.py", "raise RuntimeError('helpers are not imported')\n")
        declarations = read()
        assert names(declarations) == {"main": "flows/inner_of_tests.py:main"}
        assert declarations.notes == ()


class TestWhatGetsNoDeploymentIsTold:
    def test_a_file_without_a_flow(self, write, read, tmp_path):
        path = write("helpers_of_tests.py", "VALUE = 1\n")
        declarations = read()
        assert declarations.deployments == ()
        (note,) = declarations.notes
        assert note.startswith(f"{path}: there is no flow in it")
        assert "`_`" in note

    def test_a_project_without_a_folder_of_flows(self, tmp_path):
        declarations = read_declarations(tmp_path, environment="development")
        assert declarations.deployments == ()
        assert declarations.notes == (f"{tmp_path}/flows: there is no such folder, so no deployment is registered",)

    def test_a_flow_that_is_only_imported(self, write, read, tmp_path):
        (tmp_path / "library_of_tests.py").write_text(FLOW.replace("main", "inner"), encoding="utf-8")
        write("user_of_tests.py", "from library_of_tests import inner\n" + FLOW)
        (note,) = read().notes
        assert "user_of_tests.py:1: the flow `inner` is imported and gets no deployment" in note


def test_flows_that_take_any_parameter_and_values_that_can_be_coerced_pass(write, read):
    write(
        "lenient_of_tests.py",
        """
        from pathlib import Path
        from prefect import flow
        from pydantic import BaseModel

        DEPLOYMENT = {"cron": "@daily", "parameters": {"path": "/tmp", "others": {"x": 1}, "inner": {"a": 1}}}

        class Inner(BaseModel):
            a: int

        @flow
        def main(path: Path, inner: Inner, untyped=None, **others): ...
        """,
    )
    (one,) = read().deployments
    assert one.body["parameters"] == {"path": "/tmp", "others": {"x": 1}, "inner": {"a": 1}}


class TestTheProjectsOwnPackages:
    """`config`, `events`, `flows` and `services` are names of Sluice's own packages too."""

    def test_win_where_a_flow_is_imported(self, write, read, tmp_path):
        for package in ("config", "events", "services"):
            (tmp_path / package).mkdir()
            (tmp_path / package / "__init__.py").write_text(f"NAME = 'own-{package}'\n", encoding="utf-8")
        write("__init__.py", "NAME = 'own-flows'\n")
        write(
            "named_of_tests.py",
            """
            import config, events, services
            import flows
            from prefect import flow

            @flow(name="+".join((config.NAME, events.NAME, flows.NAME, services.NAME)))
            def main(): ...
            """,
        )
        assert names(read()) == {"own-config+own-events+own-flows+own-services": "flows/named_of_tests.py:main"}

    def test_are_found_in_src_too(self, write, read, tmp_path):
        (tmp_path / "src" / "acme").mkdir(parents=True)
        (tmp_path / "src" / "acme" / "__init__.py").write_text("NAME = 'acme'\n", encoding="utf-8")
        write("src_of_tests.py", "import acme\n" + FLOW.replace("@flow", "@flow(name=acme.NAME)"))
        assert names(read()) == {"acme": "flows/src_of_tests.py:main"}

    def test_of_one_file_are_not_there_for_the_next(self, write, read):
        """Each run has a process of its own too."""
        write("a_of_tests.py", "import sys\nsys.modules['left_behind'] = sys\n" + FLOW)
        write("b_of_tests.py", "import sys\nassert 'left_behind' not in sys.modules\n" + FLOW.replace("main", "other"))
        assert set(names(read())) == {"main", "other"}


class TestFlowsAreNamed:
    def read(self, root: Path, *flows: str) -> dict[str, str]:
        return names(read_declarations(root, environment="development", flows=flows, where="sluice.yaml:1: flows"))

    def test_by_folders_and_files(self, tmp_path):
        for name in ("jobs/nightly.py", "jobs/more/weekly.py", "one.py", "flows/left_out.py"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            stem = Path(name).stem
            (tmp_path / name).write_text(FLOW.replace("@flow", f"@flow(name='{stem}')"), encoding="utf-8")
        assert self.read(tmp_path, "jobs", "one.py") == {
            "nightly": "jobs/nightly.py:main",
            "weekly": "jobs/more/weekly.py:main",
            "one": "one.py:main",
        }

    def test_by_modules_of_the_project_with_imports_relative_to_them(self, tmp_path):
        package = tmp_path / "src" / "acme" / "pipelines"
        package.mkdir(parents=True)
        for folder in (package, package.parent):
            (folder / "__init__.py").write_text("", encoding="utf-8")
        (package / "names.py").write_text("NAME = 'nightly'\n", encoding="utf-8")
        (package / "nightly.py").write_text(
            "from .names import NAME\n" + FLOW.replace("@flow", "@flow(name=NAME)"), encoding="utf-8"
        )
        assert self.read(tmp_path, "acme.pipelines") == {"nightly": "acme.pipelines.nightly.main"}
        assert self.read(tmp_path, "acme.pipelines.nightly") == {"nightly": "acme.pipelines.nightly.main"}

    @pytest.mark.parametrize("name", ["jobs", "acme.missing", "../outside", "a b"])
    def test_and_one_that_leads_nowhere_is_told(self, tmp_path, name):
        with pytest.raises(ConfigError) as caught:
            self.read(tmp_path, name)
        (problem,) = caught.value.problems
        assert problem.startswith("sluice.yaml:1: flows: ")
        assert repr(name) in problem


def test_a_missing_library_keeps_back_its_file_alone(write, read):
    path = write("needy_of_tests.py", "import not_there_at_all\n" + FLOW.replace("main", "needy"))
    write("content_of_tests.py", FLOW)
    declarations = read()
    assert names(declarations) == {"main": "flows/content_of_tests.py:main"}
    ((prefix, why),) = declarations.unusable.items()
    assert prefix == "flows/needy_of_tests.py:"
    assert why.startswith(f"{path}: it cannot be imported: {path}, line 1: ModuleNotFoundError")


def test_a_module_of_the_project_that_fails_is_no_missing_library(write, read, tmp_path):
    (tmp_path / "half_of_tests.py").write_text("import half_of_tests.more\n", encoding="utf-8")
    write("user_of_tests.py", "import half_of_tests\n" + FLOW)
    (problem,) = faults(read, tmp_path)
    assert "it cannot be imported" in problem
