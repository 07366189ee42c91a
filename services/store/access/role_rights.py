"""Which keys, channels and commands of Redis each role needs; `services.store.access.acl` makes users of them.

A pattern is one of Redis' ACL: ``~`` may be read and written, ``%R~`` only read. Redis checks the keys that a script
uses against the rights of its caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from config.settings import RoleName
from services.store.keys import Key

CONNECTING: Final = "+auth +hello +ping +quit +select +client|setinfo +client|setname +client|id"
DATA: Final = (
    "+@read +@write -@admin -@dangerous -@scripting -dbsize -randomkey -scan"
    " +eval +evalsha +script|load +@transaction +time +wait +info"
)
"""Commands on keys, which the patterns limit; of commands without keys, none that shows or ends the work of others."""


@dataclass(frozen=True, slots=True)
class RoleRights:
    """Patterns of keys to write, to read only, and of channels; ``commands`` come beside `CONNECTING` and `DATA`."""

    writes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    commands: str = ""

    def may_write(self, key: Key) -> bool:
        """Whether every key that the declaration stands for may be written."""
        return any(fnmatchcase(key.pattern, pattern) for pattern in self.writes)


KEEPER: Final[RoleName] = "router"
"""The role that may write every key of Sluice, and therefore inspects all of them."""

_EVERY_ROLE: Final = (
    "sluice:damaged", "sluice:dead", "sluice:dead:*", "sluice:inspection:*", "sluice:metrics", "sluice:project",
    "sluice:quarantine:*", "sluice:role:*", "sluice:state-version",
)  # fmt: skip
"""Its report, quarantined data, and the identity of the installation."""

_EVENTS: Final = ("sluice:journal", "sluice:known:*")
_SIGNALS: Final = (
    "sluice:signal:*", "sluice:signals:for:*", "sluice:signals:index", "sluice:signals:open", "sluice:signals:outbox",
    "sluice:signals:sequence", "rq:job:signal-*", "rq:queue:sluice-resume", "rq:queues",
)  # fmt: skip
"""To submit a signal, and to have it applied."""

_REOPENING: Final = ("sluice:active:*", "sluice:history:*", "sluice:open:*", "sluice:run:*", "sluice:runs")
"""To have a finished event, or a run of it, replayed."""

_HISTORY: Final = ("sluice:history:*", "sluice:index:*", "sluice:journal", "sluice:known:*", "sluice:run:*",
                   "sluice:verdicts:*")  # fmt: skip

_RQ_WORKER: Final = (
    "rq:clean_registries:*", "rq:execution:*", "rq:executions:*", "rq:queues", "rq:results:*", "rq:worker:*",
    "rq:workers", "rq:workers:*",
)  # fmt: skip

RIGHTS: Final[Mapping[RoleName, RoleRights]] = {
    "listeners": RoleRights(
        writes=(
            *_EVENTS, *_SIGNALS, *_REOPENING, "sluice:canary", "sluice:canary:remains", "sluice:files:*",
            "sluice:finished", "sluice:inbound:*", "sluice:lease:*",
        ),
        reads=(*_HISTORY, "sluice:signals:*"),
        commands="+subscribe +unsubscribe +psubscribe +punsubscribe",
    ),
    "router": RoleRights(
        writes=("sluice:*", "rq:*"),
        channels=("sluice:dispatch-queues:notify",),
        commands="+scan +publish",
    ),
    "resumer": RoleRights(
        writes=(
            *_RQ_WORKER, "sluice:history:*", "sluice:signal:*", "sluice:signals:*", "rq:job:signal-*",
            "rq:job::signal-*", "rq:queue:sluice-resume", "rq:queue:sluice-resume:*", "rq:*:sluice-resume",
        ),
        reads=(*_HISTORY, "sluice:executor:restored"),
        channels=("sluice:signals:told:*",),
        commands="+publish +client|info +client|unblock",
    ),
    "executor": RoleRights(
        writes=(
            *_RQ_WORKER, "sluice:executor:*", "rq:job:*", "rq:queue:sluice-runs", "rq:queue:sluice-runs-*",
            "rq:queue:sluice-runs:*", "rq:*:sluice-runs", "rq:*:sluice-runs-*",
        ),
        reads=("sluice:registered",),
        channels=("rq:pubsub:*",),
        commands="+scan +subscribe +unsubscribe +client|info +client|unblock",
    ),
    "api": RoleRights(
        writes=(
            *_EVENTS, *_SIGNALS, *_REOPENING, "sluice:files:*:returned:*", "sluice:files:*:wanted", "sluice:hooks:*",
            "sluice:links:secret", "sluice:tokens", "sluice:tokens:used",
        ),
        reads=("sluice:*", "rq:*"),
        channels=("sluice:signals:told:*",),
        commands="+scan +subscribe +unsubscribe",
    ),
}  # fmt: skip

RIGHTS_OF_EVERY_ROLE: Final = RoleRights(writes=_EVERY_ROLE)


def written_by(role: RoleName, keys: Iterable[Key]) -> Iterator[Key]:
    """Return the declared keys that the role may write."""
    rights = RIGHTS[role]
    return (key for key in keys if rights.may_write(key) or RIGHTS_OF_EVERY_ROLE.may_write(key))


def role_rules(role: RoleName) -> str:
    """Return the rules of the role's user, without those for the project's own sources."""
    rights = RIGHTS[role]
    return rules(
        RoleRights((*_EVERY_ROLE, *rights.writes), rights.reads, rights.channels, f"{DATA} {rights.commands}".strip())
    )


def rules(rights: RoleRights) -> str:
    """Return them as rules of an ACL, in an order in which no rule revokes another."""
    writes = sorted(set(rights.writes))
    reads = sorted(set(rights.reads) - set(writes))
    words = [f"~{pattern}" for pattern in writes] + [f"%R~{pattern}" for pattern in reads]
    words += ["resetchannels", *(f"&{channel}" for channel in sorted(set(rights.channels)))]
    return " ".join([*words, "-@all", CONNECTING, rights.commands]).strip()
