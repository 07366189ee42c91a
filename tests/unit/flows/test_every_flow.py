"""What holds for each of the reference flows."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from services.deployments.declared import read_declarations

FLOWS = sorted(path for path in (Path(__file__).parents[3] / "flows").glob("*.py") if not path.name.startswith("_"))

LOAD_ALL = """
import json, runpy, sys
from prefect import Flow
names = {}
for path in sys.argv[1:]:
    found = runpy.run_path(path)
    names[path] = [value.name for name, value in found.items() if isinstance(value, Flow) and not name.startswith("_")]
foreign = sorted({"config", "events", "flows", "services"} & set(sys.modules))
print(json.dumps([names, foreign]))
"""


def test_each_file_loads_beside_the_shared_tasks_and_the_client_library_and_holds_one_flow_of_its_name(
    tmp_path: Path, checkout: Path
) -> None:
    copies = []
    for path in FLOWS:
        copy = tmp_path / "elsewhere" / "flows" / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
        copies.append(str(copy))
    shutil.copytree(checkout / "tasks", tmp_path / "elsewhere" / "tasks")
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "sluice").symlink_to(checkout / "sluice")
    answer = subprocess.run(
        [sys.executable, "-c", LOAD_ALL, *copies],
        cwd=tmp_path,
        env={
            "PYTHONPATH": f"{tmp_path / 'library'}:{tmp_path / 'elsewhere'}",
            "HOME": str(tmp_path),
            "PATH": "/usr/bin:/bin",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert answer.returncode == 0, answer.stderr
    names, foreign = json.loads(answer.stdout.splitlines()[-1])
    assert {Path(path).stem: found for path, found in names.items()} == {
        path.stem: [path.stem.replace("_", "-")] for path in FLOWS
    }
    assert foreign == []


def test_each_flow_becomes_a_deployment_that_says_what_it_is_for(checkout: Path) -> None:
    declarations = read_declarations(checkout, environment="development")
    assert declarations.notes == ()
    assert {one.body["entrypoint"].partition(":")[0]: one.name for one in declarations.deployments} == {
        f"flows/{path.name}": f"{path.stem.replace('_', '-')}/default" for path in FLOWS
    }
    assert all(one.body["description"] and one.body["schedules"] == [] for one in declarations.deployments)


def test_what_looks_after_the_others_is_scheduled_outside_development(checkout: Path) -> None:
    declared = read_declarations(checkout, environment="production").deployments
    schedules = {one.flow: [each["schedule"] for each in one.body["schedules"]] for one in declared}
    assert {flow: found for flow, found in schedules.items() if found} == {
        "daily-report": [{"cron": "0 7 * * *", "timezone": "Europe/Berlin"}],
        "health-check": [{"cron": "*/15 * * * *", "timezone": "UTC"}],
        "performance-monitor": [{"interval": 900, "timezone": "UTC"}],
    }


def test_each_flow_names_its_runs_and_says_what_it_needs(checkout: Path) -> None:
    for path in FLOWS:
        assert "flow_run_name=run_name(" in path.read_text(encoding="utf-8"), path.name
