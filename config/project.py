"""The project file ``sluice.yaml``: sources and rules, or everything that is wrong with them at once."""

from __future__ import annotations

import copy
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from config.contracts import contract_problems
from config.faults import describe
from config.overlaps import watch_problems
from config.reachability import unreachable
from config.settings import CHECKOUT, DEFAULT_PROJECT
from config.sources import FilesSource, Sources
from config.yaml_file import Document, KeyPath, parse_yaml, read_yaml
from events.errors import ConfigError
from events.expectations import run_tests
from events.rule import Rule, RuleSet
from events.rule_model import PARTS_ONLY, RuleSpec
from events.rule_parts import RuleProblems
from sluice.loading.contracts.contract import Contract

NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
ENDPOINTS: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def _fits(pattern: re.Pattern[str], fix: str) -> BeforeValidator:
    def check(value: object) -> object:
        if not isinstance(value, str) or pattern.fullmatch(value) is None:
            raise ValueError(f"{value!r} does not fit — {fix}")
        return value

    return BeforeValidator(check)


ProjectName = Annotated[
    str,
    _fits(NAME, "write lower-case letters, digits and `-`, at most 40, a letter or digit first"),
    Field(json_schema_extra={"pattern": f"^{NAME.pattern}$"}),
]
EndpointName = Annotated[
    str,
    _fits(ENDPOINTS, "write `module:name`, such as `endpoints: acme.web:router`"),
    Field(json_schema_extra={"pattern": f"^{ENDPOINTS.pattern}$"}),
]
SCHEMA_URL: Final = "https://json-schema.org/draft/2020-12/schema"


class ProjectFile(BaseModel):
    """A Sluice project: where events come from, which rules act on them, and where its flows stand."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Sluice project", use_attribute_docstrings=True)

    name: ProjectName | None = None
    """Tells the project's runs, and what it keeps in Redis, from those of other projects on the same servers."""
    flows: tuple[Annotated[str, Field(min_length=1)], ...] | None = None
    """Folders, files and modules with flows, relative to the project's folder or its `src`. Without this key: the
    folder `flows`, if it is there."""
    deployments: dict[str, Any] = Field(default_factory=dict)
    """What the deployments of all flows have: `owner`, `tags`, and other keys of `DEPLOYMENT` in a flow's file, which
    may say something else; `environments` overrides it for one environment."""
    endpoints: EndpointName | None = None
    """The project's own HTTP routes below `/endpoints`: `module:name` of an `APIRouter` of FastAPI, or of an ASGI
    application."""
    sources: Sources = Field(default_factory=Sources)
    rules: tuple[RuleSpec, ...] = ()
    contracts: tuple[Contract, ...] = ()
    """What files must look like, and where their rows go. The files of a folder ``contracts`` beside the project file
    hold one each."""


@dataclass(frozen=True, slots=True)
class Project:
    """A project file that is good to run. ``version`` is a short hash of the file: it names the rules that judged."""

    sources: Sources
    rules: RuleSet
    path: Path
    version: str
    document: Document = field(repr=False)
    contract_folder: Path
    """Where files with contracts may lie."""
    flows: tuple[str, ...] | None = None
    """The folders, files and modules with its flows; None is the folder ``flows``, if it is there."""
    name: str | None = None
    deployments: Mapping[str, Any] = field(default_factory=dict)
    """What the deployments of all flows have, as it is written; it is checked with the flows."""
    endpoints: str | None = None
    """The project's own HTTP routes, `module:name`."""

    @property
    def contract_sources(self) -> list[str]:
        """The absolute paths of the file and the folder with contracts."""
        return [os.path.abspath(self.path), os.path.abspath(self.contract_folder)]  # noqa: PTH100 - links stay

    @property
    def text(self) -> str:
        """The file as it was read."""
        return self.document.raw.decode()

    @property
    def watched_folders(self) -> list[str]:
        """The absolute paths of the watches."""
        return [os.path.abspath(source.path) for source in self.sources.files.values()]  # noqa: PTH100 - as the watch takes it

    def where(self, rule: str, *key: str | int) -> str:
        """``file:line: rule 'x': a.b`` for a part of a rule, as problems begin."""
        index = next(index for index, one in enumerate(self.rules.rules) if one.name == rule)
        return _where(self.document, ("rules", index, *key), rule)


def load_project(path: Path, *, home: Path) -> Project:
    """The project in ``path``; ``home`` is where the installation's state lies.

    Raises `ConfigError` with every problem, each as ``file:line: rule 'x': key: what is wrong — what to do``.
    """
    return _project(read_yaml(path), home, contracts_matter=True)


def parse_project(text: str, path: Path, *, home: Path) -> Project:
    """`load_project` of a text that once was the file ``path``."""
    return _project(parse_yaml(text.encode(), path), home)


def version_of(raw: bytes) -> str:
    """What names the rules of a project file with this content."""
    return hashlib.sha256(raw).hexdigest()[:12]


def _project(document: Document, home: Path, *, contracts_matter: bool = False) -> Project:
    path = document.path
    problems = list(document.problems)
    data = document.data if document.data is not None else {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}:1: the file must hold a mapping with `sources` and `rules`")
    file = _top_level(document, data, problems)
    known = len(problems)
    sources = _sources(document, data.get("sources"), home, problems)
    sound = len(problems) == known
    rules = _rules(document, data.get("rules"), problems)
    problems += [
        f"{_where(document, ('rules', index, *key), rule.name)}: {said}"
        for index, rule in _placed_rules(data.get("rules"), rules)
        for key, said in (unreachable(rule, sources.files) if sound else ())
    ]
    folder = _base(path, home) / "contracts"
    problems += contract_problems(document, folder) if contracts_matter else ()
    if problems:
        raise ConfigError(*sorted(problems, key=_line))
    version = version_of(document.raw)
    return Project(
        sources=sources,
        rules=RuleSet(rules),
        path=path,
        version=version,
        document=document,
        contract_folder=folder,
        flows=file.flows,
        name=file.name,
        deployments=file.deployments,
        endpoints=file.endpoints,
    )


def project_root(path: Path) -> Path:
    """The folder of the project whose file is ``path``: where its flows lie and are imported from."""
    return CHECKOUT if path.resolve() == DEFAULT_PROJECT else path.resolve().parent


def run_rule_tests(project: Project) -> list[str]:
    """Run the ``tests`` beside the rules; what failed, each as ``file:line: rule 'x': tests.0: …``. Starts nothing."""
    return [
        f"{project.where(rule.name, *problem.path)}: {problem.message}"
        for rule in project.rules.rules
        for problem in run_tests(rule)
    ]


def project_schema() -> dict[str, Any]:
    """The JSON Schema of project files, for editors to complete and check."""
    return {"$schema": SCHEMA_URL, **ProjectFile.model_json_schema(mode="validation")}


def _top_level(document: Document, data: dict[str, Any], problems: list[str]) -> ProjectFile:
    """The keys beside sources, rules and contracts, whose parts are checked one by one."""
    others = {"sources", "rules", "contracts"}
    given = {key: value for key, value in data.items() if key not in others and value is not None}
    try:
        return ProjectFile.model_validate(given)
    except ValidationError as error:
        problems += [f"{document.where(key)}: {_dotted(key)}: {said}" for key, said in describe(error, ProjectFile)]
        return ProjectFile()


def _rules(document: Document, data: Any, problems: list[str]) -> list[Rule]:
    if data is None:
        return []
    if not isinstance(data, list):
        problems.append(f"{document.where(('rules',))}: `rules` must be a list — begin each rule with `- name:`")
        return []
    rules = []
    names: dict[str, KeyPath] = {}
    for index, value in enumerate(data):
        key: KeyPath = ("rules", index)
        name = value.get("name") if isinstance(value, dict) else None
        if isinstance(name, str) and name in names:
            first = document.where(names[name])
            problems.append(
                f"{_where(document, (*key, 'name'), name)}: the name is taken by {first} — rename one of them"
            )
        names.setdefault(str(name), key)
        try:
            rules.append(Rule(RuleSpec.model_validate(value)))
        except ValidationError as error:
            faults = [*describe(error, RuleSpec), *_further(value, error)]
            problems += [f"{_where(document, (*key, *at), name)}: {said}" for at, said in faults]
        except RuleProblems as error:
            problems += [f"{_where(document, (*key, *at), name)}: {said}" for at, said in error.problems]
    return rules


def _placed_rules(data: Any, rules: Sequence[Rule]) -> Iterator[tuple[int, Rule]]:
    """Each rule with its place in the file, where rules with faults are left out of ``rules``."""
    names = [value.get("name") if isinstance(value, dict) else None for value in data or ()]
    for rule in rules:
        yield names.index(rule.name), rule


def _further(value: Any, error: ValidationError) -> Sequence[tuple[KeyPath, str]]:
    """What is wrong besides in a rule whose keys are not all right: its globs and templates, without those keys."""
    if not isinstance(value, dict):
        return ()
    rest = copy.deepcopy(value)
    for fault in error.errors(include_url=False):
        _remove(rest, fault["loc"][:-1] if fault["type"] == "missing" else fault["loc"])
    try:
        Rule(RuleSpec.model_validate({"name": "unnamed", **rest}, context=PARTS_ONLY))
    except ValidationError:
        return ()
    except RuleProblems as found:
        return found.problems
    return ()


def _remove(value: Any, location: Sequence[int | str]) -> None:
    for part in location[:-1]:
        if not isinstance(value, dict) or part not in value:
            return
        value = value[part]
    if isinstance(value, dict) and location:
        value.pop(location[-1], None)


def _sources(document: Document, data: Any, home: Path, problems: list[str]) -> Sources:
    try:
        sources = Sources.model_validate(data if data is not None else {})
    except ValidationError as error:
        problems += [
            f"{document.where(('sources', *path))}: {_dotted(('sources', *path))}: {message}"
            for path, message in describe(error, Sources)
        ]
        return Sources()
    default = document.path.resolve() == DEFAULT_PROJECT
    base = _base(document.path, home)
    files = {name: watch.model_copy(update={"path": _placed(base, watch)}) for name, watch in sources.files.items()}
    if not default:
        problems += _unusable_folders(document, files)
    problems += [
        f"{document.where(('sources', 'files', name))}: {_dotted(('sources', 'files', name))}: {problem}"
        for name, problem in watch_problems(files)
    ]
    return sources.model_copy(update={"files": files})


def _base(path: Path, home: Path) -> Path:
    """What relative paths in the project file are relative to; in the default one they lie beside the home."""
    return home.parent if path.resolve() == DEFAULT_PROJECT else path.resolve().parent


def _placed(base: Path, watch: FilesSource) -> Path:
    return Path(os.path.normpath(base / watch.path.expanduser()))


def _unusable_folders(document: Document, files: Mapping[str, FilesSource]) -> Iterator[str]:
    for name, watch in files.items():
        key = ("sources", "files", name, "path")
        at = f"{document.where(key)}: {_dotted(key)}"
        if not watch.path.exists():
            yield f"{at}: there is no folder {watch.path} — create it (mkdir -p), or mend the path"
        elif not watch.path.is_dir():
            yield f"{at}: {watch.path} is a file, not a folder — name the folder that it lies in"
        elif not os.access(watch.path, os.R_OK | os.X_OK):
            yield f"{at}: the folder {watch.path} may not be read by this user — grant it r-x"


def _where(document: Document, key: KeyPath, rule: object) -> str:
    inside = _dotted(key[2:])
    named = f"rule {rule!r}" if isinstance(rule, str) else f"rule {int(key[1]) + 1}"
    return f"{document.where(key)}: {named}" + (f": {inside}" if inside else "")


def _dotted(key: KeyPath) -> str:
    return ".".join(map(str, key))


def _line(problem: str) -> tuple[int, str]:
    _, _, rest = problem.partition(":")
    number = rest.partition(":")[0]
    return (int(number) if number.isdecimal() else 0, problem)
