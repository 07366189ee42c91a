"""URLs of pages in Prefect's UI, in the version of the UI that the server opens by default."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Final

_CLOUD: Final = "/workspace/"
"""Part of every URL of Prefect Cloud, which has one version of its UI."""

_OFF: Final = frozenset({"0", "false", "no", "off", "f", "n"})


def page(ui: str, path: str) -> str:
    """Return the URL of the page ``path``, such as ``runs/flow-run/ID``, of the UI at ``ui``.

    A server has its old UI below ``/`` and its new one below ``/v2``, to which ``/`` redirects unless that is switched
    off (``PREFECT_SERVER_UI_V2_ENABLED``).
    """
    ui = ui.rstrip("/")
    old = os.environ.get("PREFECT_SERVER_UI_V2_ENABLED", "").lower() in _OFF
    version = "" if old or _CLOUD in ui or ui.endswith("/v2") else "/v2"
    return f"{ui}{version}/{path}"


def run_page(ui: str, run_id: str) -> str:
    """Return the URL of a flow run's page."""
    return page(ui, f"runs/flow-run/{run_id}")


def overview_key(project: str | None) -> str:
    """The key of the artifact that is a project's overview; Prefect takes lower-case letters, digits and dashes."""
    slug = re.sub(r"[^a-z0-9]+", "-", (project or "").lower()).strip("-")
    return f"sluice-overview-{slug}" if slug else "sluice-overview"


def unpacks_beside_its_code() -> bool:
    """Whether Prefect may unpack its UI where it is installed, once for all homes; else it would serve none."""
    found = find_spec("prefect")
    return found is not None and found.origin is not None and os.access(Path(found.origin).with_name("server"), os.W_OK)
