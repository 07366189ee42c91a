"""The sidecar: the note beside a file whose run failed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from services.listeners.files.arriving.unready_files import shown
from services.listeners.files.folder import Folder
from sluice.display import in_json

Finished = Mapping[str, Any]
"""How an event ended, as an entry of `sluice:finished` has it."""


def parsed(raw: bytes) -> Finished:
    """Parse an entry of the stream; empty where it cannot be read."""
    try:
        value = json.loads(raw)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def sidecar_text(folder: Folder, path: bytes, event_id: str, finished: Finished, *, at: datetime) -> bytes:
    """Return the sidecar of the file at ``path``: what happened, when, what to do, and where to read more."""
    runs: Sequence[Mapping[str, Any]] = [run for run in finished.get("runs") or () if isinstance(run, Mapping)]
    dead: Sequence[Mapping[str, Any]] = [letter for letter in finished.get("dead") or () if isinstance(letter, Mapping)]
    bad = [run for run in runs if str(run.get("state_type", "")).upper() != "COMPLETED"]
    url = next((run["url"] for run in [*bad, *runs] if run.get("url")), None)
    again = f"{folder.path / shown(path)}"
    if folder.source.ready == "marker":
        again += ", with its marker"
    first = f"Read the run's log at {url}. " if url else ""
    content = {
        "file": shown(path),
        "what_happened": " ".join([*map(_of_run, bad), *map(_of_letter, dead)])
        or "The event of this file ended in failure, and no reason was given.",
        "when": at.isoformat(),
        "what_to_do": (
            f"{first}Where the file is right as it is, mend what is at fault and run it again: "
            f"sluice events replay {event_id}. A corrected file is moved to {again}, and runs as a new one."
        ),
        "run_url": url,
        "event_id": event_id,
        "watch": folder.name,
        "runs": [dict(run) for run in runs],
        "dead_letters": [dict(letter) for letter in dead],
    }
    return (in_json(json.dumps(content, ensure_ascii=False, indent=2)) + "\n").encode("utf-8", "replace")


def _of_run(run: Mapping[str, Any]) -> str:
    state = run.get("state_name") or run.get("state_type") or "an unknown state"
    message = run.get("message")
    ended = f"The run of {run.get('deployment') or 'a deployment'} ended as {state}"
    return f"{ended}: {message}" if message else f"{ended}."


def _of_letter(letter: Mapping[str, Any]) -> str:
    rule = f"The rule {letter['rule']}" if letter.get("rule") else "A rule"
    return f"{rule} could not act on the file: {letter.get('reason') or letter.get('code') or 'no reason was given'}"
