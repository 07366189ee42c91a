"""The users that a Redis (7 or newer) or Valkey should have for Sluice: a publisher, the roles, an operator."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from config.settings import ROLES
from config.sources import RedisSource
from events.errors import ConfigError
from services.store.events.known_events import escaped

ROLE_RULES: Final = "~sluice* ~rq:* resetchannels &sluice* &rq:* +@all -@admin -@dangerous +info +client"
"""What Sluice needs; docs/security.md has the same."""

_CONNECTING: Final = "+auth +hello +ping +quit +select +client|setinfo +client|setname"


@dataclass(frozen=True, slots=True)
class AclUser:
    """A user, with a password that is nowhere else."""

    name: str
    rules: str
    password: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    def line(self) -> str:
        """As an ACL file has it, where the password is its SHA-256."""
        digest = hashlib.sha256(self.password.encode()).hexdigest()
        return f"user {self.name} reset on #{digest} {self.rules}"


def acl_users(sources: Iterable[RedisSource]) -> list[AclUser]:
    """The users for a project with these sources.

    The publisher may append to their streams and lists and publish on their channels, and may read nothing. The roles
    have the same rights, under different names, so that each password can be changed by itself and the server's log
    says which role it was. The operator, who runs commands and `sluice backup`, may ask for a copy too.

    Raises `ConfigError` for a name that an ACL file cannot hold.
    """
    listed = list(sources)
    names = [name for one in listed for name in (one.stream, one.list, one.channel) if name]
    wrong = sorted({name for name in names if any(character.isspace() for character in name)})
    if wrong:
        raise ConfigError(*(f"{name!r} has white space, which no ACL rule can name: rename it" for name in wrong))
    keys = sorted({escaped(key) for one in listed for key in (one.stream, one.list) if key})
    channels = sorted({one.channel if one.pattern else escaped(one.channel) for one in listed if one.channel})
    publishing = [*(f"%W~{key}" for key in keys), "resetchannels", *(f"&{channel}" for channel in channels)]
    own = [f"~{key}" for key in keys if not key.startswith("sluice")]
    heard = [f"&{channel}" for channel in channels if not channel.startswith("sluice")]
    # A rule that resets the channels must stand before those that name some.
    rules = " ".join([ROLE_RULES, *own, *heard])
    return [
        AclUser("sluice-publisher", " ".join([*publishing, _CONNECTING, "+publish +xadd +lpush +rpush"])),
        *(AclUser(f"sluice-{role}", rules) for role in ROLES),
        AclUser("sluice-operator", f"{rules} +sync +config|get"),
        AclUser("sluice-admin", "~* &* +@all"),
    ]


def acl_file(users: Iterable[AclUser]) -> str:
    """What the server's ``aclfile`` is to hold: these users, and nobody without a password."""
    return "\n".join([*(user.line() for user in users), "user default reset off", ""])
