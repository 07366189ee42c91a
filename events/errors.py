"""The errors of Sluice, named by what the caller does with them."""

from __future__ import annotations


class SluiceError(Exception):
    """The root of every error that Sluice raises on purpose."""


class ConfigError(SluiceError):
    """The configuration cannot be used: refuse to start and exit 2.

    ``problems`` holds one sentence for each problem, each naming file, line and key where they are known,
    so that a reader mends all of them in one go.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Refused(SluiceError):
    """The request can never succeed: say why, and do not try it again.

    ``code`` is a short stable word for programs and listings (``ambiguous``, ``prefect-refused``, …).
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class TransientError(SluiceError):
    """An outside system cannot do it now: retry the same call with back-off."""


class Backpressure(SluiceError):
    """Downstream is full, and nothing was accepted: stop reading the source until it has room."""


class NotFound(SluiceError):
    """There is nothing with the given name or id: say so, exit 1."""


class RejectedEvent(Refused):
    """The event or signal can never be handled: keep it as a dead letter, then acknowledge it.

    Its ``code`` also stands in listings and counts for circuits (``not-json``, ``too-large``, …).
    """
