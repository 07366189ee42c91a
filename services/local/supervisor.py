"""`sluice up`: the servers and every role on one machine; their start, their restarts and their end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from types import FrameType
from typing import Final

import structlog

from config.logs import FORMAT_VARIABLE, configure_logging
from config.project import Project, load_project, project_root
from config.runs import ExecutorSettings
from config.settings import CHECKOUT, RedisSettings, Settings
from events.errors import TransientError
from services.common.process_tree import Strays, adopt_orphans, pauses_until_children_end, reap_orphans
from services.deployments.flow_code import flows_mention
from services.home.access import find_access
from services.home.home import PRIVATE_UMASK, Home, RunningInstallation
from services.local.child import RESTART_SECONDS, Child
from services.local.embedded_servers import PYTHON_MODULE, Server, kept_by_prefect, start_prefect, start_valkey
from services.local.output.role_logs import SUPERVISOR, RoleLogs
from services.local.own_servers import check_own_servers
from services.local.start_template import FOR_LOADING, StartTemplate
from services.local.starting.deploy_process import DeployProcess
from services.local.starting.plan import PlannedInstallation, claim_ports, plan_installation
from services.local.systemd.service_manager import ServiceManager
from services.local.welcome import welcome
from services.operations.readiness import read_readiness
from services.operations.status import read_status
from services.store.connection import connect, connect_sync
from services.store.runs.registered_files import has_registered_files
from services.store.state.installation import check_state

log = structlog.get_logger()

# Sources stop first and servers last, so that nothing is accepted that cannot be passed on. The stages of a stop
# together stay under ten seconds, the promise for Ctrl-C, unless `executor.stop_seconds` asks for more.
STOP_ORDER: Final[Sequence[tuple[tuple[str, ...], float]]] = (
    (("api", "listeners"), 2.0),
    (("router", "resumer", "executor"), 4.0),
)
SERVER_STOP_SECONDS: Final = 1.5

READY_SECONDS: Final = 180.0

LOOK_SECONDS: Final = 1.0
"""How often it is checked that no process is frozen. The end of one ends the pause."""


class Supervisor:
    """Starts, watches and stops everything that ``sluice up`` runs on the home of ``settings``."""

    def __init__(self, settings: Settings, *, say: Callable[[str], None], warn: Callable[[str], None]) -> None:
        self._settings = settings
        self._manager = ServiceManager()
        self._say = say
        self._warn = warn
        self._home = Home(settings.home)
        self._children: list[Child] = []
        self._servers: list[Child] = []
        self._template: StartTemplate | None = None
        self._logs = RoleLogs(settings.home / "logs", settings.log)

    def run(self) -> None:
        """Run until SIGINT, SIGTERM, or SIGHUP, which a closed terminal sends.

        Raises `ConfigError` before anything is started when the configuration is not valid, a port is taken, the secret
        of a webhook is missing, or another process runs on this home; `TransientError` when something does not get
        ready.
        """
        settings = self._settings
        project = load_project(settings.config, home=settings.home)
        if project.sources.http.hooks:
            from services.listeners.http.hooks.receiver import hooks_with_secrets

            hooks_with_secrets(project.sources.http.hooks, os.environ)
        os.umask(PRIVATE_UMASK)
        closed = self._home.make_private()
        if closed:
            self._warn(closed)
        if settings.open:
            self._warn(
                "OPEN: this installation has no passwords. Every user and every program on this machine can run code"
                " as you through it."
            )
        with self._home.locked(), self._signals(), ExitStack() as stack:
            stack.callback(self._say, "Stopped.")
            adopt_orphans()
            stack.callback(Strays().kill)  # last: processes that runs, or their executor, have left behind
            try:
                running = self._start(project, stack)
                self._home.write_running(running)
                asyncio.run(self._until_ready())
                for line in welcome(running, settings, project):
                    self._say(line)
                self._logs.show()
                self._manager.ready()
                pause = stack.enter_context(pauses_until_children_end())
                while True:
                    ended = any(child.server is None for child in self._children)
                    pause(RESTART_SECONDS / 2 if ended else LOOK_SECONDS)
                    self._manager.beat()
                    for child in self._children:
                        child.keep_running()
                    reap_orphans({child.server.process.pid for child in self._children if child.server is not None})
            except KeyboardInterrupt:
                self._manager.stopping()
                self._say("")
                self._say("Stopping (once more Ctrl-C ends everything at once) ...")

    def _start(self, project: Project, stack: ExitStack) -> RunningInstallation:
        """Start everything in order; ``stack`` ends in the opposite order what has been started."""
        settings = self._settings
        ports = claim_ports(settings)
        check_own_servers(settings, say=self._say)
        for watch in project.sources.files.values():
            watch.path.mkdir(parents=True, exist_ok=True)
        planned = plan_installation(settings, self._home.credentials(), ports)
        self._fork_template(project, planned.environment, stack)
        stack.callback(self._logs.start().close)  # a thread: the template is forked before it, and the roles end first
        self._logs.hold()
        configure_logging(settings.log, role=SUPERVISOR, output=self._logs.stream())
        stack.callback(_stop_together, self._servers, SERVER_STOP_SECONDS)
        roles = self._roles(planned.environment, stack)
        deploying = self._start_servers(planned, roles["executor"], stack)
        self._say("Registering the deployments and starting the roles ...")
        deploying.finish(say=self._say)
        for child in roles.values():
            if child.server is None:
                child.start()
        return planned.running

    def _fork_template(self, project: Project, env: Mapping[str, str], stack: ExitStack) -> None:
        """Fork the start template; it imports the libraries of loading if a flow mentions them."""
        loading = flows_mention(project_root(self._settings.config), project.flows, FOR_LOADING.rpartition(".")[0])
        self._template = StartTemplate.fork(env, libraries=[FOR_LOADING] if loading else [])
        if self._template is not None:
            stack.callback(self._template.close)

    def _start_servers(self, planned: PlannedInstallation, executor: Child, stack: ExitStack) -> DeployProcess:
        """Start the servers that are not named; return `sluice deploy`, which starts while Prefect's server does.

        So does the executor where flows were registered before: it imports their libraries meanwhile.
        """
        settings = self._settings
        if not settings.redis_url:
            self._start_valkey(planned.ports.redis, planned.redis)
        with connect_sync(planned.running.redis_url, settings.redis) as redis:
            check_state(redis)  # before a Prefect server migrates its database
            registered = has_registered_files(redis)
        deploying: list[DeployProcess] = []

        def deploy() -> None:
            log_file = settings.home / "logs" / "deploy.log"
            deploying.append(DeployProcess(planned.environment, log_file=log_file, template=self._template))
            stack.callback(deploying[0].stop)
            if registered:
                executor.start()

        if settings.prefect_api_url:
            deploy()
        else:
            self._start_prefect(planned.ports.prefect, planned.running.prefect_auth_string, meanwhile=deploy)
        return deploying[0]

    def _roles(self, env: Mapping[str, str], stack: ExitStack) -> dict[str, Child]:
        """Return the roles in the order of their start, the opposite of that in which ``stack`` will stop them."""
        settings = self._settings
        roles: dict[str, Child] = {}
        for names, seconds in reversed(STOP_ORDER):
            stage = [
                Child(
                    name,
                    partial(self._role, name, env),
                    home=settings.home,
                    frozen_seconds=settings.health.frozen_seconds,
                )
                for name in names
            ]
            stack.callback(_stop_together, stage, seconds + (_more_for_runs(settings) if "executor" in names else 0.0))
            roles |= {child.name: child for child in stage}
        self._children += roles.values()
        return roles

    def _start_valkey(self, port: int, secured: RedisSettings) -> None:
        self._say("Starting Valkey ...")
        home = self._settings.home
        log_file = home / "logs" / "valkey.log"
        self._serve("valkey", lambda: start_valkey(home / "valkey", port, secured, log_file=log_file))

    def _start_prefect(self, port: int, auth: str | None, *, meanwhile: Callable[[], None]) -> None:
        home = self._settings.home
        self._say("Starting the Prefect server ...")
        first = [meanwhile]
        self._serve(
            "prefect",
            lambda: start_prefect(
                home / "prefect",
                port,
                log_file=home / "logs" / "prefect.log",
                host=self._settings.prefect_host,
                auth_string=auth,
                tickets=self._home.tickets,
                allowed_hosts=self._settings.allowed_hosts,
                template=self._template,
                extra_env=kept_by_prefect(self._settings.history.prefect_days),
                meanwhile=first.pop() if first else None,
            ),
        )

    def _serve(self, name: str, start: Callable[[], tuple[Server, str]]) -> None:
        child = Child(name, lambda: start()[0])
        child.start()
        self._children.append(child)
        self._servers.append(child)

    def _role(self, name: str, env: Mapping[str, str]) -> Server:
        command = [*PYTHON_MODULE, "services.cli", "run", name]
        env, pipe = {**env, FORMAT_VARIABLE: "json"}, self._logs.pipe(name)
        return Server(f"role {name}", command, log_file=pipe, env=env, cwd=CHECKOUT, template=self._template)

    async def _until_ready(self) -> None:
        """Wait until every role is ready and say what it waits for; raises `TransientError` after `READY_SECONDS`."""
        deadline = time.monotonic() + READY_SECONDS
        said: str | None = None
        redis = connect(str(find_access(self._settings).redis_url), self._settings.redis)
        try:
            while True:
                # Only the roles at first: both servers have just answered.
                readiness = await read_readiness(redis, self._settings)
                if not readiness.unstarted:
                    readiness, _ = await read_status(self._settings)
                if not readiness.unstarted:
                    for problem in readiness.problems:  # such as a backlog: no part of the start
                        self._warn(f"not ready: {problem}")
                    return
                waiting = ", ".join(readiness.waiting_for)
                if waiting != said:
                    self._say(f"  waiting for {waiting}")
                    said = waiting
                for child in self._children:
                    child.keep_running()
                if time.monotonic() > deadline:
                    problems, logs = "; ".join(readiness.unstarted), self._settings.home / "logs"
                    raise TransientError(f"not ready after {READY_SECONDS:.0f} s: {problems}; see {logs}")
                await asyncio.sleep(0.1)
        finally:
            await redis.aclose()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Handle signals: the first stops everything in order, the next SIGINT or SIGTERM kills every process."""
        asked = 0
        terminals = [number for number in (1, 2) if os.isatty(number)]

        def interrupt(number: int, _frame: FrameType | None) -> None:
            nonlocal asked
            if number == signal.SIGHUP:
                _leave(terminals)
                if asked:  # both the kernel and the shell send one for a closed terminal
                    return
            asked += 1
            if asked == 1:
                raise KeyboardInterrupt
            for child in self._children:
                if child.server is not None:
                    child.server.kill()

        ours = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # else it was started with nohup
            ours.append(signal.SIGHUP)
        before = {number: signal.signal(number, interrupt) for number in ours}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _more_for_runs(settings: Settings) -> float:
    """Return how much longer than by default the executor may take, because its runs may."""
    return max(0.0, settings.executor.stop_seconds - ExecutorSettings().stop_seconds)


def _leave(terminals: Sequence[int]) -> None:
    """Stop writing to these descriptors: their terminals are gone, and writing to them is an error."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    for number in terminals:
        os.dup2(nothing, number)
    os.close(nothing)


def _stop_together(children: list[Child], seconds: float) -> None:
    for child in children:
        if child.server is not None:
            with contextlib.suppress(ProcessLookupError):
                child.server.process.terminate()
    deadline = time.monotonic() + seconds
    for child in children:
        child.stop(max(0.1, deadline - time.monotonic()))
