"""Python's search for garbage that refers to itself, set for processes that run long and allocate much."""

from __future__ import annotations

import gc
from typing import Final

_CONTAINERS: Final = 20_000
"""So many more containers made than freed before the young ones are searched (Python: 700)."""

_YOUNGER_SEARCHES: Final = (50, 100)


def search_seldom() -> None:
    """Leave what is loaded by now out of every later search, and search more seldom; call it before the work begins.

    Prefect's server holds some 280,000 objects that live as long as it does. A resume call cost it 7 % less of its
    processor in 200 calls side by side, its memory was the same (docs/benchmarks.md).
    """
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(_CONTAINERS, *_YOUNGER_SEARCHES)
