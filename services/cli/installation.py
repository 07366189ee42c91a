"""`sluice init | up | run | env | ui | status | check | deploy`: the installation as a whole."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import unquote, urlsplit

import typer

from config.certificates import certificate_remarks, tls_files
from config.location import read_env_file
from config.logs import configure_logging
from config.redis_users import OPERATOR
from config.settings import DEFAULT_PROJECT, RoleName, Settings, load_settings
from events.errors import ConfigError
from services.cli.output import say, show_json, show_json_line, show_line, warn
from services.cli.terminal.options import AsJson, ConfigOption, HomeOption
from services.home.access import Access, find_access
from services.home.home import Home
from services.local.new_project import Template, make_project

if TYPE_CHECKING:
    from config.parameters import ParameterFindings
    from config.project import Project
    from services.deployments.declared import Declarations
    from services.deployments.project_check import Checked


def _show_version(asked: bool) -> None:
    if asked:
        from services.local.environment.version import installed_version

        show_line(installed_version())
        raise typer.Exit


WATCH_SECONDS: Final = 2.0
"""Interval of `status --watch`: as often as the roles report."""


def register(app: typer.Typer) -> None:
    """Add these commands to the top level."""
    for command in (init, up, run, env, ui, check, deploy):
        app.command()(command)
    app.command(shows_times=True)(status)  # type: ignore[call-arg]


def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Files, messages and HTTP calls become Prefect flow runs; signals resume the runs that wait."""
    del version  # shown by its callback, before any command


def init(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="The folder; made if it does not exist.")] = Path(),
    template: Annotated[Template, typer.Option(help="The first flow and sources of the project.")] = Template.FILES,
) -> None:
    """Make a project in DIR: project file, a flow, a test, an inbox. `sluice up` then runs it."""
    for path in make_project(directory.expanduser(), template):
        show_line(str(path))
    inside = "" if directory.resolve() == Path.cwd() else f"cd {shlex.quote(str(directory))} && "
    say(f"A project from the template {template}. Next: {inside}sluice up")


def up(
    home: HomeOption = None,
    config: ConfigOption = None,
    is_open: Annotated[
        bool, typer.Option("--open", help="Without passwords: development only, on loopback only (SLUICE_OPEN).")
    ] = False,
) -> None:
    """Run everything on this machine until Ctrl-C: the servers that the settings do not name, and every role."""
    from services.local.supervisor import Supervisor

    if is_open:
        os.environ["SLUICE_OPEN"] = "true"
    settings = _settings(home, config)
    configure_logging(settings.log)
    from services.common.process_tree import show_as

    show_as(f"up {settings.home}")
    Supervisor(settings, say=say, warn=warn).run()


def run(role: RoleName, home: HomeOption = None, config: ConfigOption = None) -> None:
    """Run one instance of a role until SIGTERM; any number of instances may run."""
    settings = _settings(home, config, redis_user=role)
    if role in {"executor", "api"}:  # these run the project's own code, which may need its own libraries
        _enter_flows_environment(settings)
    configure_logging(settings.log, role=role)
    from services.common.process_tree import show_as

    show_as(role)
    from services.app import run_role

    run_role(role, settings)


def env(as_json: AsJson = False) -> None:
    """Print the addresses and passwords of this installation for other programs: `eval "$(sluice env)"`.

    Only the owner of the home may. Variables without a value are unset, so that those of another installation do not
    stay in the shell.
    """
    settings, access = _own_access()
    if access.redis_url is None and access.prefect_api_url is None:
        raise ConfigError(_NOTHING_RUNS.format(settings.home))
    found = access.as_environment()
    if as_json:
        show_json(found)
        return
    password = urlsplit(found["SLUICE_REDIS_URL"] or "").password
    # redis-cli and rq read these: a password in their arguments would show in the list of processes.
    found |= {"REDISCLI_AUTH": unquote(password) if password else None, "RQ_REDIS_URL": found["SLUICE_REDIS_URL"]}
    for name, value in found.items():
        print(f"unset {name}" if value is None else f"export {name}={shlex.quote(value)}")


def ui() -> None:
    """Print a link that opens the Prefect UI and logs the browser in; it is valid once, for an hour."""
    settings, access = _own_access()
    if access.running is None:
        raise ConfigError(_NOTHING_RUNS.format(settings.home))
    print(Home(settings.home).ui_link(access.running))


_NOTHING_RUNS: Final = "nothing runs on {}: start `sluice up`, or set SLUICE_HOME to its home"


def _own_access() -> tuple[Settings, Access]:
    """Return the settings and the access to this home's installation. Raises `ConfigError` unless its owner asks."""
    settings = load_settings()
    Home(settings.home).refuse_others()
    return settings, find_access(settings)


def status(
    as_json: AsJson = False,
    role: Annotated[RoleName | None, typer.Option("--role", help="Only this role, and only on this machine.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every two seconds, until Ctrl-C.")] = False,
) -> None:
    """Show whether the installation is ready, and why not; exit code 0 if it is ready, otherwise 1."""
    from services.cli.pages.status import show_status, watched
    from services.operations.readiness import Readiness
    from services.operations.status import read_status

    settings = load_settings()

    def look() -> Readiness:
        readiness, told = asyncio.run(read_status(settings))
        show = show_status if not as_json else show_json_line if watch else show_json
        show(told)
        return readiness

    readiness = watched(look, every_seconds=WATCH_SECONDS) if watch else look()
    ready = readiness.ready if role is None else readiness.ready_here(role)
    if role is not None and not ready:
        say(f"no instance of the role {role} on this machine is ready")
    raise typer.Exit(0 if ready else 1)


async def check(config: ConfigOption = None) -> None:
    """Check settings, sources, rules and flows without starting anything; exit code 0, or 2 with all problems.

    If a Prefect server is named or runs here, parameters are compared with its deployments; a server that does not
    respond is a warning only.
    """
    settings = _settings(None, config)
    _check_certificates(settings)
    _enter_flows_environment(settings)
    if settings.redis_url is not None:
        from services.local.own_servers import redis_remarks

        _warn(await asyncio.to_thread(redis_remarks, settings, str(settings.redis_url_with_password)))
    access = find_access(settings)
    url, auth = access.prefect_api_url, access.prefect_auth_string
    os.environ.update(access.for_prefect())  # read by Prefect's client when it is first imported
    from services.deployments.project_check import AskPrefect, check_project, hold_against_prefect

    async with AsyncExitStack() as stack:
        ask: AskPrefect | None = None
        if url:
            from services.cli.session import PATIENCE_SECONDS
            from services.common.prefect_probe import prefect_answers
            from services.prefect_api.client import connect

            prefect = await stack.enter_async_context(connect(url, auth_string=auth, patience_seconds=PATIENCE_SECONDS))

            async def ask(project: Project, declarations: Declarations) -> ParameterFindings:
                await prefect_answers(url, auth_string=auth)
                return await hold_against_prefect(project, prefect, declarations)

        checked = await check_project(settings, ask_prefect=ask)
    _remarks(checked)
    project = checked.project
    say(
        f"{project.path}: {len(project.sources.files)} watched folders, {len(project.sources.redis)} Redis sources,"
        f" {len(project.rules)} rules and {checked.tests} tests, {len(checked.declarations.deployments)} flows,"
        f" {_judgement(checked, asked=url is not None)}"
    )
    _tell_missing_secrets(project)


def _tell_missing_secrets(project: Project) -> None:
    """Warn of webhooks whose secret is not set here: it may be set where Sluice runs."""
    hooks = project.sources.http.hooks
    if hooks:
        from services.listeners.http.hooks.receiver import hooks_with_secrets

        try:
            hooks_with_secrets(hooks, os.environ)
        except ConfigError as error:
            _warn(error.problems)


async def deploy(
    plan: Annotated[bool, typer.Option("--plan", help="Only show what would be done.")] = False,
    as_json: AsJson = False,
    wait: Annotated[float, typer.Option("--wait", help="Seconds to wait until Prefect responds.")] = 0.0,
) -> None:
    """Register the deployments of the project's flows with Prefect, and remove those whose flow is gone.

    If anything in the flows or the rules is wrong, nothing is registered: exit code 2 with all problems. Flows whose
    library is not installed here, or whose work pool Prefect does not have, are warnings, and the others are
    registered.
    """
    from services.cli.session import open_session

    _enter_flows_environment(_settings(None, None))
    async with open_session() as session:
        prefect = await session.prefect(patience_seconds=None)
        from services.cli.pages.deployments import show_steps
        from services.deployments.deploy import DeploymentPlan, carry_out, plan_deployments
        from services.deployments.project_check import check_project
        from services.deployments.signatures import check_with_prefect

        plans: list[DeploymentPlan] = []

        async def ask(project: Project, declarations: Declarations) -> ParameterFindings:
            await session.wait_for_prefect(wait)
            plans.append(await plan_deployments(prefect, session.redis, declarations))
            return await check_with_prefect(project, prefect, declared=declarations.signatures, gone=plans[0].gone)

        checked = await check_project(session.settings, ask_prefect=ask, without_libraries=True)
        if not plans:  # Prefect or Redis did not respond: for a check a warning, here an error
            await session.wait_for_prefect(0)
            plans.append(await plan_deployments(prefect, session.redis, checked.declarations))
        if not plan:
            await carry_out(prefect, session.redis, plans[0])
        show_steps(plans[0].steps, done=not plan, as_json=as_json)
        _warn(f"{step.deployment}: {step.warning}" for step in plans[0].steps if step.warning is not None)
        _remarks(checked)
        _warn(plans[0].poolless)


def _judgement(checked: Checked, *, asked: bool) -> str:
    """Return the last words of a check that found no error."""
    if not asked:
        return "no problem found; deployments were not checked, because no Prefect server runs here or is named"
    if checked.prefect_problem is not None:
        return "no problem found, but deployments were not checked, because Prefect did not respond"
    return "all good"


def _remarks(checked: Checked) -> None:
    for note in checked.declarations.notes:
        say(f"note: {note}")
    _warn(checked.warnings)


def _warn(problems: Iterable[str]) -> None:
    for problem in problems:
        say(f"warning: {problem}")


def _check_certificates(settings: Settings) -> None:
    """Warn of certificates that expire soon. Raises `ConfigError` for TLS files with which nothing can connect."""
    remarks = [one for files in tls_files(settings, os.environ) for one in certificate_remarks(files)]
    for remark in remarks:
        if not remark.broken:
            say(f"warning: {remark.text}")
    if broken := [remark.text for remark in remarks if remark.broken]:
        raise ConfigError(*broken)


def _settings(home: Path | None, config: Path | None, *, redis_user: str = OPERATOR) -> Settings:
    # Set in the environment, so that every process started from here reads the same settings.
    if home is not None:
        os.environ["SLUICE_HOME"] = str(home.expanduser().resolve())
    if config is not None:
        os.environ["SLUICE_CONFIG"] = str(config.expanduser().resolve())
        read_env_file(os.environ, Path.cwd(), default=DEFAULT_PROJECT)
    return load_settings(redis_user=redis_user)


def _enter_flows_environment(settings: Settings) -> None:
    """Restart this command in the virtual environment of the project's flows, if the settings name one.

    Their libraries are not installed where Sluice is.
    """
    if settings.executor.python is not None:
        from services.local.environment.flows_environment import enter_flows_environment

        enter_flows_environment(settings)
