"""Steps of announcing and archiving a file at which a test interferes: a crash, or somebody else's change."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Final

from services.listeners.files.archiving import file_mover
from services.listeners.files.full_scan import FullScan
from services.store.events.finished_events import FinishedEvents
from services.store.files.ledger import Ledger
from services.store.files.returns import FileReturns

_BEFORE: Final = {"seen": (Ledger, "announce"), "reserved": (file_mover._File, "take")}
_AFTER: Final = {
    "journalled": (Ledger, "announce"),
    "swept": (FullScan, "sweep"),
    "staged": (file_mover._File, "take"),
    "moved": (file_mover._File, "place"),
    "deleted": (file_mover._File, "delete"),
    "kept": (FileReturns, "keep"),
    "settled": (Ledger, "settle"),
    "noted": (Ledger, "finish"),
    "acknowledged": (FinishedEvents, "acknowledge"),
}
STEPS: Final = (*_BEFORE, *_AFTER)


def interfere(step: str, act: Callable[[], None], *, patch: Callable[[type, str, Any], None] = setattr) -> None:
    """Have ``act`` called whenever the step is reached; ``patch`` sets an attribute, as pytest's monkeypatch does."""
    owner, name = _BEFORE.get(step) or _AFTER[step]
    before = step in _BEFORE
    own = getattr(owner, name)

    @functools.wraps(own)
    def call(*args: Any, **options: Any) -> Any:
        if before:
            act()
        result = own(*args, **options)
        if not before:
            act()
        return result

    @functools.wraps(own)
    async def call_async(*args: Any, **options: Any) -> Any:
        if before:
            act()
        result = await own(*args, **options)
        if not before:
            act()
        return result

    patch(owner, name, call_async if inspect.iscoroutinefunction(own) else call)
