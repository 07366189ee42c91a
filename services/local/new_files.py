"""The first files of a flow or a rule in a project; they pass `sluice check` and their own test unchanged."""

from __future__ import annotations

import json
import keyword
import re
import sys
from pathlib import Path
from typing import Final

from config.project import parse_project, project_root
from events.errors import ConfigError

_NAME: Final = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_TOP_LEVEL_KEY: Final = re.compile(r"[A-Za-z_]")

_FLOW: Final = '''\
"""Say here what NAME is for, and what it needs."""

from __future__ import annotations

from prefect import State, flow, task
from prefect.states import Completed

from sluice import run_name

DEPLOYMENT = {"tags": TAGS, "time_seconds": 600}


@task
def work(item: str) -> str:
    """One step. What can fail for a moment gets retries: ``@task(retries=3, retry_delay_seconds=[1, 5, 30])``."""
    return item.upper()


@flow(name="NAME", flow_run_name=run_name("NAME {item}"))
def FUNCTION(item: str) -> State[str]:
    """Say here what it does with an item; the Prefect UI shows this text."""
    done = work(item)
    return Completed(message=f"{item} is done", data=done)
'''

_FLOW_OF_FILES: Final = '''\
"""Say here what NAME does with a file, and what it needs."""

from __future__ import annotations

from prefect import State, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from sluice import open_file, run_name, visible

DEPLOYMENT = {"tags": TAGS, "time_seconds": 600}


@task(cache_policy=NO_CACHE)
def count_lines(path: str) -> int:
    """Read the version of the file that was announced, a line at a time."""
    with open_file(path) as file:
        return sum(1 for _ in file)


@flow(name="NAME", flow_run_name=run_name("NAME {path}"))
def FUNCTION(path: str) -> State[int]:
    """Say here what it does with the file; the Prefect UI shows this text."""
    lines = count_lines(path)
    return Completed(message=visible(f"{lines} lines of {path}"), data=lines)
'''

_FLOW_THAT_WAITS: Final = '''\
"""Say here what NAME asks for, and what it does with the answer."""

from __future__ import annotations

from prefect import State, flow, task
from prefect.states import Cancelled, Completed
from pydantic import BaseModel, Field

from sluice import SignalRejected, SignalTimeout, in_markdown, run_name, visible, wait_for_signal

DEPLOYMENT = {"tags": TAGS}


class Approval(BaseModel):
    """The answer; Prefect's page of the run shows it as a form."""

    approved: bool = Field(description="Whether it may go on")


@task
def work(item: str) -> str:
    """What is done once it is approved."""
    return item.upper()


@flow(name="NAME", flow_run_name=run_name("NAME {item}"))
def FUNCTION(item: str, within_seconds: float = 86_400) -> State[str | None]:
    """Wait for a signal with the key ``NAME-<item>``, and go on if it approves."""
    try:
        asked = f"May **{in_markdown(item)}** go on?"
        answer = wait_for_signal(key=f"NAME-{item}", input=Approval, timeout=within_seconds, description=asked)
    except SignalTimeout:
        return Cancelled(message="nobody answered in time")
    except SignalRejected as rejection:
        return Cancelled(message=visible(str(rejection)))
    if not answer.approved:
        return Cancelled(message="it was not approved")
    return Completed(message=visible(f"{item} is done"), data=work(item))
'''

_TEST: Final = '''\
"""Run with pytest, in the project's folder: the flow on a Prefect server of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from prefect.testing.utilities import prefect_test_harness

PROJECT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT / "FOLDER"), str(PROJECT)]  # the flow, and what it imports from the project

from MODULE import FUNCTION


def test_BODY
'''
_BODIES: Final = {
    "plain": '''what_it_does() -> None:
    with prefect_test_harness(server_startup_timeout=120):
        state = FUNCTION("apples", return_state=True)
    assert state.message == "apples is done"''',
    "file": '''what_it_does_with_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("city\\nOslo\\n", encoding="utf-8")
    with prefect_test_harness(server_startup_timeout=120):
        state = FUNCTION(str(tmp_path / "a.csv"), return_state=True)
    assert state.message == f"2 lines of {tmp_path / 'a.csv'}"''',
    "waits": '''what_it_does_when_nobody_answers() -> None:
    with prefect_test_harness(server_startup_timeout=120):
        state = FUNCTION("apples", within_seconds=1, return_state=True)
    assert state.name == "Cancelled"''',
}

_RULE: Final = """\
- name: NAME
  description: Say here what it is for.
  on: NAME.requested
  run: RUN
  parameters: {item: "{{ event.data.item }}"}
  tests:
    - event: {data: {item: apples}}
      runs: [{run: RUN, parameters: {item: apples}}]
"""
_RULE_FOR_FILES: Final = """\
- name: NAME
  description: Say here what it is for.
  on: sluice.file.arrived
  subject: "NAME-*"
  run: RUN
  parameters: {path: "{{ event.data.path }}"}
  tests:
    - event: {subject: NAME-1.csv, data: {watch: inbox, path: /inbox/NAME-1.csv, name: NAME-1.csv, size: 12}}
      runs: [{run: RUN, parameters: {path: /inbox/NAME-1.csv}}]
"""
_ANSWER_RULE: Final = """\
- name: NAME-approved
  description: Resumes the run of NAME that waits for this item.
  on: NAME.approved
  resume: {key: "NAME-{{ event.data.item }}", input: {approved: true}}
  tests:
    - event: {data: {item: apples}}
      resumes: [{key: NAME-apples, input: {approved: true}}]
"""


def new_flow(project_file: Path, name: str, *, home: Path, area: str | None, waits: bool, file: bool) -> list[Path]:
    """Write the flow, its test and its rule; return the files that are new or changed.

    Raises `ConfigError` for an invalid or taken name; then nothing is written.
    """
    if waits and file:
        raise ConfigError("--waits and --file: write one of them, and add the other by hand")
    kind = "waits" if waits else "file" if file else "plain"
    for text, what in ((name, "a flow"), (area, "an area")):
        if text is not None and not _fits(text):
            raise ConfigError(
                f"{text!r} is no name for {what} — write lower-case words with `-`, such as `load-orders`"
            )
    flow, module = name.replace("_", "-"), name.replace("-", "_")
    folder = Path("flows", area.replace("-", "_")) if area else Path("flows")
    root = project_root(project_file)
    words = {
        "NAME": flow,
        "FUNCTION": module,
        "MODULE": module,
        "FOLDER": folder.as_posix(),
        "TAGS": json.dumps([area] if area else []),
        "RUN": f"{flow}/default",
        "BODY": _filled(_BODIES[kind], {"FUNCTION": module}),
    }
    source = {"plain": _FLOW, "file": _FLOW_OF_FILES, "waits": _FLOW_THAT_WAITS}[kind]
    texts = {
        root / folder / f"{module}.py": _filled(source, words),
        root / "tests" / f"test_{module}.py": _filled(_TEST, words),
    }
    for path in texts:
        if path.exists():
            raise ConfigError(f"{path} is there already — take another name, or mend that one")
    rule = (_RULE_FOR_FILES if file else _RULE) + (_ANSWER_RULE if waits else "")
    project = _with_rules(project_file, _filled(rule, words), home=home)
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    project_file.write_text(project, encoding="utf-8")
    return [*texts, project_file]


def new_rule(project_file: Path, name: str, *, home: Path, run: str) -> None:
    """Add a rule that starts ``run`` (flow/deployment) with a test beside it; raises `ConfigError`."""
    if not _fits(name):
        raise ConfigError(f"{name!r} is no name for a rule — write lower-case words with `-`, such as `new-order`")
    text = _with_rules(project_file, _filled(_RULE, {"NAME": name, "RUN": run}), home=home)
    project_file.write_text(text, encoding="utf-8")


def _fits(name: str) -> bool:
    module = name.replace("-", "_")
    taken = keyword.iskeyword(module) or module in sys.stdlib_module_names or module in {"prefect", "sluice"}
    return _NAME.fullmatch(name) is not None and not taken


def _filled(text: str, words: dict[str, str]) -> str:
    return re.sub(rf"\b({'|'.join(words)})\b|(?<=test_)BODY", lambda found: words[found[0]], text)


def _with_rules(project_file: Path, rules: str, *, home: Path) -> str:
    """Return the text of the project file with these rules appended, checked; comments and order stay."""
    try:
        lines = project_file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(
            f"{project_file}: no rule can be added: {error.strerror} — `sluice init` makes one"
        ) from error
    start = next((at for at, line in enumerate(lines) if line.startswith("rules:")), None)
    if start is None:
        lines += ["", "rules:"]
        start = len(lines) - 1
    elif re.fullmatch(r"rules:\s*\[\s*\]\s*(#.*)?", lines[start]):
        lines[start] = "rules:"
    end = next((at for at in range(start + 1, len(lines)) if _TOP_LEVEL_KEY.match(lines[at])), len(lines))
    while end > start + 1 and not lines[end - 1].strip():
        end -= 1
    first = next((line for line in lines[start + 1 : end] if line.lstrip().startswith("- ")), "  - ")
    indent = " " * (len(first) - len(first.lstrip()))
    added = [indent + line for line in rules.splitlines()]
    gap = [""] if end > start + 1 else []
    text = "\n".join([*lines[:end], *gap, *added, *lines[end:]]) + "\n"
    parse_project(text, project_file, home=home)
    return text
