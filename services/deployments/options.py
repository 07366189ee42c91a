"""What ``DEPLOYMENT`` of a flow file may say, and what it means for Prefect."""

from __future__ import annotations

import functools
import re
import zoneinfo
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

from croniter import croniter
from prefect.client.schemas.schedules import CronSchedule
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from config.faults import describe
from config.settings import Settings
from config.yaml_file import KeyPath
from events.suggest import did_you_mean
from services.executor.intake.run_policy import Priority

ENVIRONMENTS: Final[tuple[str, ...]] = get_args(Settings.model_fields["env"].annotation)
_FUNCTION: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
LONGEST_SECONDS: Final = 10 * 366 * 86_400.0
"""Prefect's scheduler fails on intervals that lead beyond what a date can hold."""


def _cron(text: str) -> str:
    """Return the cron expression if it ever comes; raises `ValueError` with how to write one."""
    shape = "write minute, hour, day, month and weekday, such as `0 3 * * *`"
    try:
        CronSchedule(cron=text)
        croniter(text, datetime.now(UTC)).get_next()
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ValueError(f"{reason} — {shape}") from None
    except ValueError:  # all errors of croniter are
        raise ValueError(f"{text!r} never comes: no date fits it — {shape}") from None
    return text


@functools.cache
def _time_zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def _time_zone(name: str) -> str:
    if name not in _time_zones():
        near = did_you_mean(name, _time_zones())
        fix = near if near.startswith("did") else "write a name of the IANA data base, such as `Europe/Berlin`"
        raise ValueError(f"there is no time zone {name!r} — {fix}")
    return name


def _job_variables(variables: dict[str, Any]) -> dict[str, Any]:
    """Check job variables: Sluice's own are keys of DEPLOYMENT, and Prefect would accept others of any kind.

    Raises `ValueError` with how to write it.
    """
    for name in variables:
        if name.startswith("sluice_"):
            own = name.removeprefix("sluice_")
            known = ("executor", "priority", "memory_mb", "time_seconds", "on_lost", "folders")
            fix = f"write it as DEPLOYMENT's key `{own}`" if own in known else did_you_mean(own, known)
            raise ValueError(f"{name!r} is none of the job variables that are written here — {fix}")
    env = variables.get("env", {})
    if not isinstance(env, dict) or not all(isinstance(value, str | None) for value in env.values()):
        raise ValueError("`env` does not fit — write a mapping of names to texts")
    if not isinstance(variables.get("working_dir"), str | None):
        raise ValueError(  # noqa: TRY004 - pydantic takes no TypeError
            "`working_dir` does not fit — write the path of a folder"
        )
    return variables


def _pull_step(step: dict[str, Any]) -> dict[str, Any]:
    """One of Prefect's pull steps: the dotted name of a function, and a mapping of what it gets."""
    ((name, inputs), *more) = step.items() or [(None, None)]
    if more or not isinstance(inputs, dict) or not _FUNCTION.fullmatch(str(name)):
        raise ValueError(
            f"{step!r} is no pull step — write one function with what it gets, such as "
            "{'prefect.deployments.steps.git_clone': {'repository': 'https://…'}}"
        )
    return step


def _folder(path: str) -> str:
    if not Path(path).is_absolute():
        raise ValueError(f"{path!r} is no absolute path — write one, such as `/data/exports`")
    return path


Count = Annotated[int, Field(strict=True, ge=1)]
Amount = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]


class Options(BaseModel):
    """What a flow file's ``DEPLOYMENT`` says for one environment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str | None = None
    cron: Annotated[str, AfterValidator(_cron)] | None = None
    interval_seconds: Annotated[Amount, Field(le=LONGEST_SECONDS)] | None = None
    timezone: Annotated[str, AfterValidator(_time_zone)] = "UTC"
    paused: Flag = False
    parameters: dict[str, Any] = Field(default_factory=dict)
    tags: tuple[str, ...] = ()
    concurrency_limit: Count | None = None
    on_concurrency_limit: Literal["wait", "cancel"] = "wait"
    executor: str | None = None
    """The name of the executors that run it."""
    priority: Literal["high", "normal", "low"] = "normal"
    memory_mb: Amount | None = None
    time_seconds: Amount | None = None
    on_lost: Literal["crash", "restart"] = "crash"
    """What becomes of a run whose machine or slot died."""
    folders: tuple[Annotated[str, AfterValidator(_folder)], ...] = ()
    """Where its runs may open files besides the watched folders; see `sluice.open_file`."""
    job_variables: Annotated[dict[str, Any], AfterValidator(_job_variables)] = Field(default_factory=dict)
    owner: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """Who answers for it: shown as the tag ``owner:…``."""
    work_pool: Annotated[str, Field(min_length=1)] | None = None
    """The work pool of Prefect whose workers run it, instead of Sluice's executor."""
    pull: tuple[Annotated[dict[str, Any], AfterValidator(_pull_step)], ...] | None = None
    """How those workers come to its code: Prefect's pull steps. Without them they enter the project's folder."""

    def over(self, template: Options) -> Options:
        """These options, and those of the template that they say nothing of; tags and job variables of both."""
        said = {name: getattr(self, name) for name in self.model_fields_set}
        said["tags"] = tuple(dict.fromkeys((*template.tags, *self.tags)))
        said["job_variables"] = {**template.job_variables, **self.job_variables}
        return template.model_copy(update=said)

    def variables(self) -> dict[str, Any]:
        """The deployment's job variables."""
        if self.work_pool is not None:
            return self.job_variables
        own = {
            "sluice_executor": self.executor,
            "sluice_priority": None if self.priority == str(Priority.NORMAL) else self.priority,
            "sluice_memory_mb": self.memory_mb,
            "sluice_time_seconds": self.time_seconds,
            "sluice_on_lost": None if self.on_lost == "crash" else self.on_lost,
            "sluice_folders": list(self.folders) or None,
        }
        return {**self.job_variables, **{name: value for name, value in own.items() if value is not None}}

    def pull_steps(self, folder: str) -> list[dict[str, Any]] | None:
        """How a worker comes to the code of the project in ``folder``; None where none runs it."""
        if self.work_pool is None:
            return None
        if self.pull is not None:
            return list(self.pull)
        return [{"prefect.deployments.steps.set_working_directory": {"directory": folder}}]

    def pool_faults(self, template: Options) -> Iterator[tuple[KeyPath, str]]:
        """Each key that says nothing where the flow is run; ``template`` has what these options do not say."""
        pool = self.over(template).work_pool
        if pool is None and self.pull is not None:
            yield ("pull",), "Sluice's executor runs the flow where its code lies — name a `work_pool`, or take it away"
        if pool is not None:
            for name in _OF_EXECUTOR:
                if getattr(self, name) != Options.model_fields[name].default:
                    fix = "take it away, or write what the pool has for it into `job_variables`"
                    yield (name,), f"it is for Sluice's executor, and the work pool {pool!r} runs the flow — {fix}"

    def schedules(self) -> list[dict[str, Any]]:
        """The deployment's schedules, as Prefect's API takes them."""
        schedules: list[dict[str, Any]] = []
        if self.cron is not None:
            schedules.append({"cron": self.cron, "timezone": self.timezone})
        if self.interval_seconds is not None:
            schedules.append({"interval": self.interval_seconds, "timezone": self.timezone})
        return [{"schedule": schedule, "active": True} for schedule in schedules]


_OF_EXECUTOR: Final = ("executor", "priority", "memory_mb", "time_seconds", "on_lost", "folders")
OF_ONE_FLOW: Final = frozenset({"cron", "description", "interval_seconds", "parameters", "paused"})

Fault = tuple[KeyPath, str]
"""A key, and what is wrong with its value."""


def options_of(given: Mapping[str, Any]) -> tuple[dict[str, Options], list[Fault]]:
    """What ``DEPLOYMENT`` says for each environment, without its faults; and every fault."""
    overrides, faults = _overrides(given)
    plain = {key: value for key, value in given.items() if key != "environments"}
    found: dict[str, Options] = {}
    for environment in ENVIRONMENTS:
        values = {**plain, **overrides.get(environment, {})}
        said = _faults(values)
        wrong = {key[0] for key, _ in said}
        found[environment] = Options(**{key: value for key, value in values.items() if key not in wrong})
        faults += [(place_of(given, environment, key), what) for key, what in said]
    hidden = {key: value for key, value in plain.items() if all(key in overrides.get(one, {}) for one in ENVIRONMENTS)}
    return found, [*dict.fromkeys(faults), *_faults(hidden)]


def place_of(given: Mapping[str, Any], environment: str, key: KeyPath) -> KeyPath:
    """Where a key stands that counts for the environment, which may override it."""
    own = _overrides(given)[0].get(environment, {})
    return ("environments", environment, *key) if key and key[0] in own else key


def _overrides(given: Mapping[str, Any]) -> tuple[dict[str, Mapping[str, Any]], list[Fault]]:
    """What single environments say, and what is wrong with it beside the faults of their options."""
    environments = given.get("environments", {})
    if not isinstance(environments, dict):
        fix = "write a mapping, such as {'production': {…}}"
        return {}, [(("environments",), f"{environments!r} does not fit — {fix}")]
    known: dict[str, Mapping[str, Any]] = {}
    faults: list[Fault] = []
    for name, value in environments.items():
        key: KeyPath = ("environments", name)
        if name not in ENVIRONMENTS:
            faults.append((key, f"there is no environment {name!r} — {did_you_mean(name, ENVIRONMENTS)}"))
        if not isinstance(value, dict):
            faults.append((key, f"{value!r} does not fit — write a mapping"))
        elif name in ENVIRONMENTS:
            known[name] = value
        else:  # what it holds is checked too, so that the next look finds nothing more
            faults += [((*key, *inside), what) for inside, what in _faults(value)]
    return known, faults


def _faults(values: Mapping[str, Any]) -> list[Fault]:
    try:
        Options(**values)
    except ValidationError as error:
        return list(describe(error, Options))
    return []
