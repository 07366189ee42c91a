"""The register of executions: which executor instance executes which run, so that a dead machine's runs are found."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import Any, Final

from services.store.connection import SyncRedis, text
from services.store.keys import Key, is_uuid, pair
from services.store.redis_errors import translated
from services.store.scripts import Script
from services.store.unreadable import readable

ALIVE: Final = "sluice:executor:alive:"
"""Prefix of an executor instance's sign of life, which expires."""

RUNNING: Final = "sluice:executor:running:"
"""Prefix of an executor name's hash: run id -> `Execution` as JSON."""

QUEUED: Final = "sluice:executor:queued:"
"""Prefix of the key with the id of a run's last job; the run's id follows."""

QUEUED_SECONDS: Final = 600
"""How long that is known; it is renewed while the run waits."""

RESTORED: Final = "restored"
"""The ``ending`` of a run whose process ended with the installation that was backed up."""

UNSETTLED: Final = "sluice:executor:restored"
"""Set of the runs with that ending; they cannot take an answer until they wait without a process."""

_BEGIN: Final = Script("runs/begin")
_EXCHANGE: Final = Script("runs/exchange")


@dataclass(frozen=True, slots=True)
class Execution:
    """One run that an executor instance has."""

    run_id: str
    instance: str
    since: float
    """Seconds since the epoch."""
    ending: str | None = None
    """The end reason of a run whose process has ended while Prefect could not be reached."""
    message: str | None = None

    def to_json(self) -> str:
        """For Redis; equal executions give equal text."""
        fields = [self.instance, self.since, self.ending, self.message]
        return json.dumps(fields)

    @classmethod
    def from_json(cls, run_id: str, text: str | bytes) -> Execution:
        """The inverse of `to_json`."""
        instance, since, ending, message = json.loads(text)
        known = isinstance(instance, str) and isinstance(since, int | float) and math.isfinite(since)
        if not known or not all(one is None or isinstance(one, str) for one in (ending, message)):
            raise TypeError("not an execution")
        return cls(run_id=run_id, instance=instance, since=since, ending=ending, message=message)


class Executions:
    """The register of one executor name. Its methods block, and raise `TransientError` or `Backpressure`."""

    def __init__(self, redis: SyncRedis, *, name: str, alive_seconds: float) -> None:
        self._redis = redis
        self._key = RUNNING + name
        self._alive_ms = int(alive_seconds * 1000)

    def begin(self, execution: Execution) -> Execution | None:
        """Record that the instance has the run, unless another one still has it, which is returned.

        An instance has a run until the run's last process has ended and Prefect has its state.
        """
        with translated():
            held: Any = _BEGIN(self._redis, running=self._key, run_id=execution.run_id, execution=execution.to_json())
        return Execution.from_json(execution.run_id, held) if held is not None else None

    def held_by_anyone(self) -> set[str]:
        """Return the runs of all executors, whatever their name."""
        with translated():
            keys: list[Any] = list(self._redis.scan_iter(match=RUNNING + "*", count=1000))
            found: list[Any] = [run_id for key in keys for run_id in self._redis.hkeys(key)]
        return {run_id.decode() for run_id in found}

    def end(self, execution: Execution) -> None:
        """Delete the record of a settled run; does nothing if another instance has the run meanwhile."""
        self._exchange(execution, None)

    def owe(self, execution: Execution, ending: str, message: str) -> None:
        """Record that Prefect must still be told how the run ended."""
        self._exchange(execution, replace(execution, ending=ending, message=message))

    def take_over(self, execution: Execution, instance: str) -> Execution | None:
        """Take over a dead instance's run, to settle it; None if another instance was quicker."""
        taken = replace(execution, instance=instance)
        return taken if self._exchange(execution, taken) else None

    def holds(self, run_id: str) -> bool:
        """Whether an instance has the run, if only to settle it."""
        with translated():
            return bool(self._redis.hexists(self._key, run_id))

    def all(self) -> list[Execution]:
        """Return every run that an instance has."""
        with translated():
            found: Any = self._redis.hgetall(self._key)
        return list(readable(self._key, _from_row, found.items()))

    def live(self, instance: str) -> None:
        """Give a sign of life."""
        with translated():
            self._redis.set(ALIVE + instance, "1", px=self._alive_ms)

    def check_writable(self, instance: str) -> None:
        """Check that Redis accepts a write; a replica or a full server responds to PING all the same."""
        with translated():
            self._redis.set(f"{ALIVE}{instance}/check", "1", px=1)

    def leave(self, instance: str) -> None:
        """End the sign of life of an instance that stops in order."""
        with translated():
            self._redis.delete(ALIVE + instance)

    def lives(self, instance: str) -> bool:
        """Whether the instance has given a sign of life recently."""
        with translated():
            return bool(self._redis.exists(ALIVE + instance))

    def _exchange(self, old: Execution, new: Execution | None) -> bool:
        text = new.to_json() if new is not None else ""
        with translated():
            return bool(
                _EXCHANGE(
                    self._redis,
                    running=self._key,
                    run_id=old.run_id,
                    expected=old.to_json(),
                    execution=text,
                )
            )


def _from_row(row: tuple[bytes, bytes]) -> Execution:
    return Execution.from_json(is_uuid(row[0]), row[1])


def note_restored(redis: SyncRedis, message: str) -> None:
    """Record that no executor of this register lives, because a backup was restored. Blocks; raises as `Executions`."""
    with translated():
        for key in list(redis.scan_iter(match=RUNNING + "*", count=1000)):
            found: Any = redis.hgetall(key)
            for execution in readable(text(key), _from_row, found.items()):
                noted = replace(execution, ending=execution.ending or RESTORED, message=execution.message or message)
                redis.hset(key, execution.run_id, noted.to_json())
                redis.sadd(UNSETTLED, execution.run_id)
        for key in list(redis.scan_iter(match=ALIVE + "*", count=1000)):
            redis.delete(key)


KEYS: Final = (
    Key(ALIVE + "*", "string", "sign of life of an executor", "executor.lost_seconds"),
    Key(QUEUED + "*", "string", "job that a run was queued as", "10 minutes after it was last looked for", is_uuid),
    Key(UNSETTLED, "set", "restored run that takes no answer yet", "until the run is settled", is_uuid),
    Key(
        RUNNING + "*",
        "hash",
        "run in an executor's hands",
        "until the run is settled",
        pair(is_uuid, lambda raw: Execution.from_json("", raw)),
    ),
)
