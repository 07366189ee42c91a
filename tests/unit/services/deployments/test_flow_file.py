"""Every fault of a ``DEPLOYMENT`` is told with its file, line, key and fix."""

from __future__ import annotations

import pytest

from tests.unit.services.deployments.faults import faults

FLOW = "from prefect import flow\n\n@flow\ndef main(size: int = 1): ...\n"


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
