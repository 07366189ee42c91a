"""Approval links: signed, for one wait and one person, good for a while and for one answer."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from events.errors import NotFound, Refused

if TYPE_CHECKING:
    from services.prefect_api.run_view import RunView
    from services.prefect_api.waiting import WaitingRuns

LONGEST_SECONDS: Final = 30 * 86_400.0
PATH: Final = "/approve/"


class BadLink(Exception):
    """The link was not signed here, or was changed since."""


@dataclass(frozen=True, slots=True)
class ApprovalLink:
    """The content of a link: which wait of which run, for whom, and until when."""

    id: str
    run_id: str
    wait: str
    """As `RunView.wait_name` has it."""
    key: str
    person: str
    expires: datetime

    @property
    def signal_id(self) -> str:
        """The id of the signal that the link sends, by which a second one is recognised as a repetition."""
        return f"link-{self.id}"

    def text(self, secret: bytes) -> str:
        """The link's last part."""
        fields = [self.id, self.run_id, self.wait, self.key, self.person, int(self.expires.timestamp())]
        said = _encoded(json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode())
        return f"{said}.{_signature(said, secret)}"

    @classmethod
    def parse(cls, text: str, secret: bytes) -> ApprovalLink:
        """Return the link of `text`; raises `BadLink`."""
        said, _, signature = text.partition(".")
        if not hmac.compare_digest(signature.encode("utf-8", "replace"), _signature(said, secret).encode()):
            raise BadLink("the link is incomplete, or was not made here")
        try:
            id_, run_id, wait, key, person, expires = json.loads(
                base64.urlsafe_b64decode(said + "=" * (-len(said) % 4))
            )
        except (binascii.Error, ValueError) as error:
            raise BadLink("the link is of another version") from error
        return cls(id_, run_id, wait, key, person, datetime.fromtimestamp(expires, UTC))

    def is_for(self, run: RunView) -> bool:
        """Whether the run is in the wait, and waits for the key."""
        return run.ours and run.wait_name == self.wait and self.key in run.keys


async def issue(runs: WaitingRuns, *, key: str, person: str, seconds: float, run_id: str | None = None) -> ApprovalLink:
    """Return a link for ``person`` to the run that waits for ``key``.

    Raises `NotFound` where none does, and `Refused` where several do and no ``run_id`` says which.
    """
    if not 0 < seconds <= LONGEST_SECONDS:
        raise Refused("bad-link", f"a link is good for at most {LONGEST_SECONDS / 86_400:g} days")
    if not person.strip() or len(person) > 100 or not person.isprintable():  # noqa: PLR2004 - a name
        raise Refused("bad-link", "name the person whom the link is for, in at most 100 characters")
    waiting = [run for run in await runs.waiting_for([key]) if run_id in {None, run.run_id}]
    if not waiting:
        whose = f" of run {run_id}" if run_id else ""
        raise NotFound(
            f"no wait{whose} for the key {key!r} is open: `sluice runs list --state paused` shows those that are"
        )
    if len(waiting) > 1:
        ids = ", ".join(run.run_id for run in waiting)
        raise Refused("ambiguous", f"several runs wait for the key {key!r}: say which one is meant, of {ids}")
    (run,) = waiting
    expires = datetime.now(UTC) + timedelta(seconds=seconds)
    return ApprovalLink(secrets.token_urlsafe(12), run.run_id, run.wait_name, key, person.strip(), expires)


Secret = Callable[[], Awaitable[bytes]]


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _signature(said: str, secret: bytes) -> str:
    return _encoded(hmac.new(secret, said.encode("utf-8", "replace"), hashlib.sha256).digest())
