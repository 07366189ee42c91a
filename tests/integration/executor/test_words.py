"""Runs that cannot begin: their state says in words what is wrong, and where."""

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from services.executor.intake.run_policy import RunPolicy
from services.prefect_api.deployments import read
from services.store.connection import AsyncRedis
from services.store.runs.registered_files import RegisteredFile, remember
from tests.integration.executor.conftest import Bench

SIZED = "from prefect import flow\n\n\n@flow\ndef main(size: int = 1): pass\n"


@pytest.mark.parametrize(
    ("source", "parameters", "words"),
    [
        (SIZED, {"sise": 3}, ["no parameter 'sise'", "did you mean `size`", "sized.py, line 4"]),
        (SIZED, {"size": "many"}, ["size", "valid integer"]),
        (SIZED.replace(" = 1", ""), {}, ["needs the parameter 'size'", "sized.py, line 4"]),
        ("import no_such_module\n" + SIZED, {}, ["sized.py, line 1", "no_such_module"]),
        ("import sys\nsys.exit('not today')\n" + SIZED, {}, ["sized.py, line 2", "SystemExit: not today"]),
        ("import sys\nsys.exit()\n" + SIZED, {}, ["sized.py, line 2", "SystemExit"]),
        (SIZED + "def broken(:\n", {}, ["sized.py, line 6", "SyntaxError"]),
        (SIZED.replace("main", "mian"), {}, ["sized.py has no flow 'main'", "did you mean `mian`"]),
        ("main = 3\n", {}, ["sized.py has no flow 'main'"]),
        (SIZED.replace("size: int = 1", ""), {"sise": 3}, ["takes no parameters", "'sise'", "sized.py, line 4"]),
    ],
    ids=["unknown", "type", "missing", "import", "exit", "bare exit", "syntax", "renamed", "no flow", "none"],
)
async def test_a_run_that_cannot_begin_says_why(
    bench: Bench, source: str, parameters: dict[str, Any], words: list[str]
):
    await bench.start(slots=1)
    run = await bench.run(await bench.deploy(source, file="sized.py"), **parameters)
    assert run["state_type"] in {"FAILED", "CRASHED"}
    assert [word for word in words if word not in run["state"]["message"]] == []


async def test_a_run_whose_file_or_folder_is_gone_says_so(bench: Bench, redis: AsyncRedis):
    file = await bench.deploy(SIZED, file="gone.py")
    folder = await bench.deploy(SIZED, file="there.py", path="/no/such/folder")
    (bench.folder / "gone.py").unlink()
    await remember(redis, file, RegisteredFile(str(bench.folder), "gone.py:main"))
    await remember(redis, folder, RegisteredFile("/no/such/folder", "there.py:main"))
    await bench.start(slots=1)
    for deployment, words in ((file, "gone.py does not exist"), (folder, "/no/such/folder, cannot be entered")):
        message = (await bench.run(deployment))["state"]["message"]
        assert words in message


async def test_job_variables_are_set_as_the_documentation_says(bench: Bench, checkout: Path):
    text = (checkout / "docs" / "executor.md").read_text()
    (snippet,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "to_deployment" in block]
    bench.write("nightly.py", SIZED.replace("main", "nightly"))
    (bench.folder / "deploy.py").write_text(snippet.replace("/srv/flows", str(bench.folder)) + "print(deployment_id)\n")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "deploy.py", cwd=bench.folder, stdout=asyncio.subprocess.PIPE, env={**os.environ}
    )
    output, _ = await process.communicate()
    deployment = await read(bench.api, output.decode().split()[-1])
    assert deployment.job_variables == {"sluice_time_seconds": 600, "sluice_on_lost": "restart"}
    assert RunPolicy(executor="default", globs=("*",), registered=lambda _: None).refusal(deployment) is None
