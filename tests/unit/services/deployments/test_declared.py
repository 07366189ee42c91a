"""What flow files declare, and every fault of a ``DEPLOYMENT`` with its file, line, key and fix."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from events.errors import ConfigError
from services.deployments.declared import Declarations, read_declarations

FLOW = "from prefect import flow\n\n@flow\ndef main(size: int = 1): ...\n"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    (tmp_path / "flows").mkdir()

    def write(name: str, source: str) -> Path:
        path = tmp_path / "flows" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        return path

    return write


@pytest.fixture
def read(tmp_path: Path) -> Callable[[], Declarations]:
    return lambda environment="development": read_declarations(tmp_path, environment=environment)


def faults(read: Callable[[], Declarations], root: Path) -> list[str]:
    with pytest.raises(ConfigError) as error:
        read()
    return [problem.replace(f"{root}/flows/", "") for problem in error.value.problems]


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


@pytest.mark.parametrize(
    ("deployment", "said"),
    [
        ("{'crom': '* * * * *'}", "2: DEPLOYMENT.crom: unknown key — did you mean `cron`?"),
        ("{'cron': '61 * * * *'}", '2: DEPLOYMENT.cron: Invalid cron string: "61 * * * *" — write minute, hour'),
        ("{'cron': '* * *'}", "2: DEPLOYMENT.cron: Invalid cron string"),
        ("{'cron': '0 0 30 2 *'}", "2: DEPLOYMENT.cron: '0 0 30 2 *' never comes: no date fits it"),
        ("{'cron': 5}", "2: DEPLOYMENT.cron: 5 does not fit — write text, in quotes"),
        ("{'timezone': 'Europe/Berln'}", "there is no time zone 'Europe/Berln' — did you mean `Europe/Berlin`?"),
        ("{'timezone': 'Mars'}", "write a name of the IANA data base"),
        ("{'interval_seconds': 0}", "2: DEPLOYMENT.interval_seconds: 0 does not fit — input should be greater than 0"),
        ("{'interval_seconds': True}", "DEPLOYMENT.interval_seconds: True does not fit"),
        ("{'interval_seconds': 1e12}", "DEPLOYMENT.interval_seconds: 1000000000000.0 does not fit"),
        ("{'interval_seconds': 60, 'cron': '0 3 * * *'}", "DEPLOYMENT.interval_seconds: there is a `cron` too"),
        ("{'concurrency_limit': 0}", "DEPLOYMENT.concurrency_limit: 0 does not fit"),
        ("{'concurrency_limit': True}", "DEPLOYMENT.concurrency_limit: True does not fit — write a whole number"),
        ("{'concurrency_limit': '2'}", "DEPLOYMENT.concurrency_limit: '2' does not fit — write a whole number"),
        ("{'tags': 'nightly'}", "DEPLOYMENT.tags: 'nightly' does not fit — write a list"),
        ("{'tags': ['a', 3]}", "DEPLOYMENT.tags.1: 3 does not fit — write text"),
        ("{'paused': 'no'}", "DEPLOYMENT.paused: 'no' does not fit — write true or false"),
        ("{'priority': 'urgent'}", "DEPLOYMENT.priority: 'urgent' is not known — write 'high', 'normal' or 'low'"),
        ("{'job_variables': {'sluice_priority': 'high'}}", "write it as DEPLOYMENT's key `priority`"),
        ("{'job_variables': {'env': ['A=1']}}", "DEPLOYMENT.job_variables: `env` does not fit"),
        ("{'environments': ['production']}", "DEPLOYMENT.environments: ['production'] does not fit — write a mapping"),
        ("{'environments': {'developement': {'cron': None}}}",
         "DEPLOYMENT.environments.developement: there is no environment 'developement' — did you mean `development`?"),
        ("{'environments': {'production': None}}", "DEPLOYMENT.environments.production: None does not fit"),
        ("{'environments': {'staging': {'crom': ''}}}", "DEPLOYMENT.environments.staging.crom: unknown key"),
        ("{'environments': {'production': {'cron': 'x'}}}", "DEPLOYMENT.environments.production.cron: Invalid cron"),
        ("{'environments': {'production': {'environments': {}}}}", "production.environments: unknown key"),
        ("{'work_pool': ''}", "2: DEPLOYMENT.work_pool: '' does not fit"),
        ("{'work_pool': 'a', 'memory_mb': 9}",
         "2: DEPLOYMENT.memory_mb: it is for Sluice's executor, and the work pool 'a' runs the flow — take it away"),
        ("{'priority': 'high', 'environments': {'staging': {'work_pool': 'a'}}}", "2: DEPLOYMENT.priority: it is for"),
        ("{'pull': []}", "2: DEPLOYMENT.pull: Sluice's executor runs the flow where its code lies — name"),
        ("{'work_pool': 'a', 'pull': [{}]}", "2: DEPLOYMENT.pull.0: {} is no pull step — write one function"),
        ("{'work_pool': 'a', 'pull': [{'clone': {}}]}", "2: DEPLOYMENT.pull.0: {'clone': {}} is no pull step"),
        ("{'work_pool': 'a', 'pull': 'git'}", "2: DEPLOYMENT.pull: 'git' does not fit — write a list"),
        ("{'parameters': {'sise': 3}}", "sise: the flow 'main' takes no parameter 'sise' — did you mean `size`?"),
        ("{'parameters': {'size': 'big'}}", "DEPLOYMENT.parameters.size: 'big' does not fit the parameter 'size' of"),
        ("{'parameters': [1]}", "DEPLOYMENT.parameters: [1] does not fit — write a mapping"),
        ("['cron']", "2: DEPLOYMENT: a list does not fit — write a dictionary of constants"),
        ("dict(cron='* * * * *')", "2: DEPLOYMENT: `dict(cron='* * * * *')` does not fit"),
        ("None", "2: DEPLOYMENT: `None` does not fit"),
        ("{'cron': CRON}", "2: DEPLOYMENT.cron: `CRON` is not a constant — write the value"),
        ("{**BASE}", "2: DEPLOYMENT: a key is not text in quotes"),
        ("{1: 2}", "2: DEPLOYMENT: a key is not text in quotes"),
        ("{'cron': None, 'cron': None}", "2: DEPLOYMENT.cron: the key stands there twice, first in line 2"),
        ("{'parameters': {'size': b'1'}}", "DEPLOYMENT.parameters.size: b'1' does not fit — write what JSON knows"),
        ("{'parameters': {'size': {1}}}", "DEPLOYMENT.parameters.size: {1} does not fit — write what JSON knows"),
        ("{}\nDEPLOYMENT = {}", "3: DEPLOYMENT: it stands there twice, first in line 2"),
        ("{}\nDEPLOYMENT['cron'] = '0 3 * * *'", "2: DEPLOYMENT: it is changed while the file runs"),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_file_line_key_and_fix(write, read, tmp_path, deployment, said):
    write("fault_of_tests.py", FLOW.replace("\n", f"\nDEPLOYMENT = {deployment}\n", 1))
    (problem,) = faults(read, tmp_path)
    assert problem.startswith("fault_of_tests.py:")
    assert said in problem


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("from prefect import flow\n\ndef main(:\n", "3: this is not Python"),
        ("import os\nos.nothing\n" + FLOW, "line 2: AttributeError"),
        ("import os\nos._exit(3)\n", "importing it ended the process"),
        ("raise SystemExit(3)\n", "line 1: SystemExit: 3"),
        (FLOW + "main.serve()\n", "5: `main.serve` never returns when the file is imported"),
        (FLOW + "DEPLOYMENTS = {'cron': ''}\n", "5: DEPLOYMENTS: it tells nothing — did you mean `DEPLOYMENT`?"),
        (FLOW + "if True:\n    DEPLOYMENT = {}\n", "1: DEPLOYMENT: it is not assigned at the top of the file"),
        ("DEPLOYMENT = {'cron': '0 3 * * *'}\n", "1: DEPLOYMENT: the file has no flow that it could be for"),
        (FLOW.replace("size: int = 1", "day: 'datetime.date'").replace("\n", "\nimport datetime\n", 1)
         + "DEPLOYMENT = {'parameters': {'day': 'tomorrow'}}", "'tomorrow' does not fit the parameter 'day'"),
        (FLOW.replace(" = 1", "") + "DEPLOYMENT = {'cron': '0 3 * * *'}",
         "5: DEPLOYMENT.cron: its runs would lack the parameter 'size' that the flow 'main' needs"),
        (FLOW.replace(" = 1", "") + "DEPLOYMENT = {'environments': {'production': {'interval_seconds': 60}}}",
         "DEPLOYMENT.environments.production.interval_seconds: its runs would lack the parameter 'size'"),
    ],
)  # fmt: skip
def test_a_file_at_fault_is_told(write, read, tmp_path, source, said):
    write("file_of_tests.py", source)
    (problem,) = faults(read, tmp_path)
    assert problem.startswith("file_of_tests.py:")
    assert said in problem


def test_all_faults_of_all_files_are_told_at_once(write, read, tmp_path):
    write("one_of_tests.py", "DEPLOYMENT = {\n    'cron': 'x',\n    'timezone': 'Utc/Nowhere',\n}\n" + FLOW)
    write("three_of_tests.py", "DEPLOYMENT = {'environments': {'prod': {'crom': 1}, 'staging': {'tags': ''}}}\n" + FLOW)
    write("two_of_tests.py", "def broken(:\n")
    found = [problem.split(": ")[:2] for problem in faults(read, tmp_path)]
    assert [[where, said[:60]] for where, said in found] == [
        ["one_of_tests.py:2", "DEPLOYMENT.cron"],
        ["one_of_tests.py:3", "DEPLOYMENT.timezone"],
        ["three_of_tests.py:1", "DEPLOYMENT.environments.prod"],
        ["three_of_tests.py:1", "DEPLOYMENT.environments.prod.crom"],
        ["three_of_tests.py:1", "DEPLOYMENT.environments.staging.tags"],
        ["three_of_tests.py:5", "the flow's name 'main' is taken by one_of_tests.py:8 — give "],
        ["two_of_tests.py:1", "this is not Python"],
    ]


def test_what_every_environment_overrides_is_checked_too(write, read, tmp_path):
    overrides = {name: {"cron": None} for name in ("development", "staging", "production")}
    write("hidden_of_tests.py", f"DEPLOYMENT = {{'cron': 'x', 'environments': {overrides}}}\n" + FLOW)
    (problem,) = faults(read, tmp_path)
    assert "DEPLOYMENT.cron: Invalid cron string" in problem


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
