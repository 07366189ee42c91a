"""The users that a Redis (7 or newer) or Valkey should have for Sluice: publisher, roles, operator, monitor."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from config.redis_users import OPERATOR, USER_PREFIX
from config.settings import ROLES, RoleName
from config.sources import RedisSource
from events.errors import ConfigError
from services.store.access.role_rights import CONNECTING, role_rules
from services.store.events.known_events import escaped

ONE_USER_RULES: Final = (
    "~sluice* ~rq:* resetchannels &sluice* &rq:* +@all -@admin -@dangerous"
    " +info +client|id +client|info +client|setinfo +client|setname +client|unblock"
)
"""The rights that Sluice needs if all of it is one user; docs/security.md has the same line."""


@dataclass(frozen=True, slots=True)
class AclUser:
    """A user, with a new password."""

    name: str
    rules: str
    password: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    def line(self) -> str:
        """The user's line in an ACL file, which has the SHA-256 of the password."""
        digest = hashlib.sha256(self.password.encode()).hexdigest()
        return f"user {self.name} reset on #{digest} {self.rules}"


def acl_users(sources: Iterable[RedisSource], *, inner: Iterable[RedisSource] = ()) -> list[AclUser]:
    """Return the users for a project with these sources; nobody else publishes to the ``inner`` ones.

    The publisher may append to their streams and lists and publish on their channels, and may read nothing. Each role
    may do what `services.store.access.role_rights` says, and the listeners read the sources. The operator, who runs
    commands, has the rights of all roles, and may copy and restore the data (`sluice backup`, `sluice restore`). The
    monitor may only read. Several Prefect servers exchange their messages as ``prefect``.

    Raises `ConfigError` for a name that an ACL file cannot hold.
    """
    listed = list(sources)
    names = [name for one in listed for name in (one.stream, one.list, one.channel) if name]
    wrong = sorted({name for name in names if any(character.isspace() for character in name)})
    if wrong:
        raise ConfigError(*(f"{name!r} has white space, which no ACL rule can name: rename it" for name in wrong))
    keys, channels = _keys(listed), _channels(listed)
    # The rule that resets the channels must come before those that name some.
    publishing = [*(f"%W~{key}" for key in keys), "resetchannels", *(f"&{channel}" for channel in channels)]
    sourced = [f"~{key}" for key in [*keys, *_keys(inner)]] + [f"&{channel}" for channel in channels]
    users: dict[str, list[str]] = {
        "publisher": [*publishing, "-@all", CONNECTING, "+publish +xadd +lpush +rpush"],
        **{str(role): _of_role(role, sourced) for role in ROLES},
        OPERATOR: [ONE_USER_RULES, *sourced, "+sync +restore +config|get"],
        "prefect": [_PREFECT],
        "monitor": [*_MONITOR, *(f"%R~{key}" for key in keys)],
        "admin": ["~* &* +@all"],
    }
    return [AclUser(f"{USER_PREFIX}{name}", " ".join(words)) for name, words in users.items()]


def _keys(sources: Iterable[RedisSource]) -> list[str]:
    return sorted({escaped(key) for one in sources for key in (one.stream, one.list) if key})


def _channels(sources: Iterable[RedisSource]) -> list[str]:
    return sorted({one.channel if one.pattern else escaped(one.channel) for one in sources if one.channel})


_PREFECT: Final = (
    "~[^sr]* ~s[^l]* ~r[^q]* resetchannels &[^sr]* &s[^l]* &r[^q]* +@all -@admin -@dangerous"
    " +info +client|id +client|info +client|setinfo +client|setname"
)
"""For messages of several Prefect servers (prefect-redis): all keys that begin neither as Sluice's nor as RQ's."""

_MONITOR: Final = (
    "%R~sluice:* %R~rq:* resetchannels -@all",
    CONNECTING,
    "+@read -@admin -@dangerous -@scripting -randomkey +info +time +@transaction",
)


def _of_role(role: RoleName, sourced: Sequence[str]) -> list[str]:
    return [role_rules(role), *(sourced if role == "listeners" else [])]


def acl_file(users: Iterable[AclUser]) -> str:
    """Return the content of the server's ``aclfile``: these users, and nobody without a password."""
    return "\n".join([*(user.line() for user in users), "user default reset off", ""])
