"""Checks of the environment variables: left over from another installation, or misspelt."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final

from events.redact import redacted
from services.operations.doctor.finding import Finding, fail, ok, warn

_CHANGES_THE_CLIENT: Final = ("PREFECT_PROFILE", "PREFECT_PROFILES_PATH", "PREFECT_HOME")
_ADDRESS: Final = "PREFECT_API_URL"
_CLOUD: Final = "PREFECT_API_KEY"


def check_variables(
    environ: Mapping[str, str], *, own_prefect: str | None, prefect_names: Callable[[], Collection[str]]
) -> Iterator[Finding]:
    """``own_prefect`` is the address of the home's own server, if one runs; the names are those that Prefect reads."""
    problems = list(_problems(environ, own_prefect, prefect_names))
    yield from problems
    if not problems:
        names = [name for name in environ if name.startswith(("PREFECT_", "SLUICE_"))]
        yield ok("environment", f"{len(names)} variables of Sluice and Prefect are set, and each is known")


def _problems(
    environ: Mapping[str, str], own_prefect: str | None, prefect_names: Callable[[], Collection[str]]
) -> Iterator[Finding]:
    """Yield Prefect's variables that lead to another server, change what its client reads, or have no effect."""
    found = sorted(name for name in environ if name.startswith("PREFECT_"))
    address = environ.get(_ADDRESS, "").rstrip("/")
    if own_prefect is not None and address and address != own_prefect:
        said = f"{_ADDRESS} is {redacted(address)}, and the home's own Prefect server is at {own_prefect}"
        yield fail("environment", said, f"unset {_ADDRESS}: commands ask another server than the one that runs here")
    for variable in (one for one in _CHANGES_THE_CLIENT if one in found):
        said = f"{variable} is set, which changes what Prefect's client reads"
        yield warn("environment", said, f"unset {variable} if it is left over from elsewhere")
    if _CLOUD in found and environ.get("PREFECT_API_AUTH_STRING"):
        said = f"{_CLOUD} is for Prefect Cloud, and PREFECT_API_AUTH_STRING is set too"
        yield warn("environment", said, f"unset {_CLOUD}")
    others = [name for name in found if name not in {_ADDRESS, _CLOUD, *_CHANGES_THE_CLIENT, "PREFECT_API_AUTH_STRING"}]
    if others:
        known = prefect_names()
        for name in (name for name in others if name not in known):
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
            yield warn(
                "environment",
                f"{name}: Prefect has no such setting",
                f"unset {name}" + (f", or write {near[0]}" if near else ""),
            )
