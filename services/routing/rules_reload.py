"""Reloads the rules when their file changes: the file is checked whole, then used at once, or refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import structlog

from config.health import CANARY_TYPE
from config.parameters import ParameterFindings
from config.project import Project, load_project
from events.errors import ConfigError, SluiceError
from events.event import Event
from events.rule import RuleSet, Verdict, evaluate
from services.common.reasons import told
from services.routing.poison_check import end_of_evaluation
from services.store.rules.rules_in_force import InForce

LOOK_SECONDS: Final = 1.0
"""How often the file is checked for changes."""

CHECK_SECONDS: Final = 60.0
"""How often the rules in force are compared with the deployments, which may change too."""

log = structlog.get_logger()

Check = Callable[[Project], Awaitable[ParameterFindings]]


class LiveProject:
    """The project in force.

    ``check`` asks Prefect whether the parameters fit; ``publish`` stores the project in force for other processes.
    ``canary`` has the rules for the canary's events, and for no others. With ``sources_matter``, the status says when
    the file's sources differ from those that this process has open.
    """

    def __init__(
        self,
        project: Project,
        *,
        home: Path,
        check: Check | None = None,
        publish: Callable[[InForce], Awaitable[None]] | None = None,
        sources_matter: bool = False,
        canary: RuleSet | None = None,
    ) -> None:
        self._started_with = project
        self._project = project
        self._home = home
        self._check = check
        self._publish = publish
        self._sources_matter = sources_matter
        self._canary = canary or RuleSet()
        self._rules = self._with_canary()
        self._loaded_at = datetime.now(UTC).isoformat()
        # The file may have changed since it was read: the first check compares.
        self._mark: tuple[int, ...] | None = None
        self._last_mark: tuple[int, ...] | None = None
        self._refused: Sequence[str] = ()
        self._misfits: Sequence[str] = ()
        self._waiting: Sequence[str] = ()
        self._published = ""

    @property
    def project(self) -> Project:
        """The project in force at this moment."""
        return self._project

    def rules(self) -> RuleSet:
        """The rules in force, the canary's included."""
        return self._rules

    def version(self) -> str:
        """The version of the project in force."""
        return self._project.version

    def judge(self, event: Event) -> tuple[tuple[Verdict, ...], str]:
        """Return the verdicts of the rules in force, and their version."""
        project = self._project
        rules = self._canary if event.type == CANARY_TYPE else project.rules
        return evaluate(rules, event), project.version

    async def end_of_evaluation(self, event: Event) -> str | None:
        """Evaluate the event in a process of its own; return how that process was ended, None if it ended by itself."""
        return await end_of_evaluation(event, self._project, home=self._home)

    def _with_canary(self) -> RuleSet:
        return RuleSet((*self._project.rules.rules, *self._canary.rules))

    async def run(self) -> None:
        """Follow the file until cancelled."""
        next_check = 0.0
        clock = asyncio.get_running_loop().time
        while True:
            await self.look()
            try:
                await self._tell()
                if clock() >= next_check:
                    await self._check_in_force()
                    next_check = clock() + CHECK_SECONDS
            except SluiceError as error:
                log.debug("the rules could not be checked or published now", error=str(error))
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> bool:
        """Use the file if it has changed, is no longer being written and is valid; return whether it took effect."""
        mark = _mark(self._project.path)
        resting, self._last_mark = mark == self._last_mark, mark
        if mark == self._mark or not resting:
            return False
        try:
            project = await asyncio.to_thread(load_project, self._project.path, home=self._home)
        except ConfigError as error:
            return self._refuse(mark, error.problems)
        findings = await self._found(project)
        if findings.errors:
            return self._refuse(mark, findings.errors)
        self._mark = mark
        self._refused = ()
        if project.version == self._project.version:
            return False
        log.info("rules reloaded", version=project.version, before=self._project.version, rules=len(project.rules))
        self._project = project
        self._rules = self._with_canary()
        self._loaded_at = datetime.now(UTC).isoformat()
        self._note(findings)
        return True

    def status(self) -> Mapping[str, Any]:
        """For the role's report."""
        project = self._project
        status: dict[str, Any] = {
            "file": str(project.path),
            "version": project.version,
            "rules": len(project.rules),
            "loaded": self._loaded_at,
        }
        if self._waiting:
            status["waiting_for"] = list(self._waiting)
        reasons: dict[str, str | None] = {}
        if self._refused:
            status["refused"] = list(self._refused)
            more = f" (and {len(self._refused) - 1} more)" if len(self._refused) > 1 else ""
            refused = f"the changed file is refused, the old rules stay in force: {self._refused[0]}{more}"
            reasons["rules-refused"] = refused
        elif self._misfits:
            reasons["rule-misfit"] = self._misfits[0]
        elif self._sources_matter and _opened(project) != _opened(self._started_with):
            changed = "the sources or the endpoints in the file have changed: restart this role to use them"
            reasons["restart-needed"] = changed
        return status | told(reasons)

    def _refuse(self, mark: tuple[int, ...], problems: Sequence[str]) -> bool:
        self._mark = mark
        self._refused = problems
        log.error(
            "the changed rules are refused, the old ones stay in force",
            file=str(self._project.path),
            version=self._project.version,
            problems=list(problems),
        )
        return False

    async def _found(self, project: Project) -> ParameterFindings:
        """Return the findings of Prefect's deployments on the rules; empty while Prefect cannot be reached."""
        if self._check is None:
            return ParameterFindings()
        try:
            return await self._check(project)
        except SluiceError:
            return ParameterFindings()

    async def _check_in_force(self) -> None:
        if self._check is not None:
            self._note(await self._check(self._project))

    def _note(self, findings: ParameterFindings) -> None:
        for error in set(findings.errors) - set(self._misfits):
            log.error("a rule does not fit its deployment", problem=error)
        for warning in set(findings.warnings) - set(self._waiting):
            log.warning("a rule waits for its deployment", problem=warning)
        self._misfits, self._waiting = findings.errors, findings.warnings

    async def _tell(self) -> None:
        project = self._project
        if self._publish is None or self._published == project.version:
            return
        await self._publish(InForce(project.version, str(project.path), project.text, self._loaded_at))
        self._published = project.version


def _opened(project: Project) -> Any:
    """The parts of the project that a role opens when it starts."""
    return project.sources, project.endpoints


def _mark(path: Path) -> tuple[int, ...]:
    """Return a value that changes with the file's content; empty while there is no file."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_mtime_ns, found.st_size, found.st_ino)
