"""Whether a Prefect server answers, and takes our password, asked without Prefect's client (which takes a second)."""

from __future__ import annotations

import base64
import os
from typing import Final

import httpx

_REFUSED: Final = frozenset({401, 403})


def prefect_problem(url: str, *, auth_string: str | None = None) -> str | None:
    """What keeps us from using the API at ``url``, as the end of a sentence; None when nothing does.

    Without ``auth_string`` the environment's credentials are sent.
    """
    answer = _asked(url, auth_string)
    if isinstance(answer, str):
        return answer
    if answer.status_code in _REFUSED:
        return f"answers {answer.status_code}: PREFECT_API_AUTH_STRING (or PREFECT_API_KEY) must hold its password"
    if answer.status_code != httpx.codes.OK:
        return f"answers {answer.status_code}"
    return None


def prefect_version(url: str) -> str | None:
    """The version of the server whose API is at ``url``; None where it does not tell."""
    answer = _asked(url, None)
    return None if isinstance(answer, str) or answer.status_code != httpx.codes.OK else answer.text.strip('"')


def _asked(url: str, auth_string: str | None) -> httpx.Response | str:
    auth = auth_string or os.environ.get("PREFECT_API_AUTH_STRING")
    key = os.environ.get("PREFECT_API_KEY")
    headers = {}
    if auth:
        headers["Authorization"] = f"Basic {base64.b64encode(auth.encode()).decode()}"
    elif key:
        headers["Authorization"] = f"Bearer {key}"
    secure = url.lower().startswith("https:")  # else the certificates, which take longer to load than all else, are not
    try:
        return httpx.get(f"{url.rstrip('/')}/admin/version", headers=headers, timeout=3, verify=secure)
    except httpx.HTTPError as error:
        return f"does not answer ({str(error) or type(error).__name__})"
