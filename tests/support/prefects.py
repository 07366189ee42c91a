"""A Prefect server of a test module's own, with settings of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from services.embedded import claim_port, start_prefect


@contextmanager
def own_prefect(home: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """The API URL of a server that lives as long as the block."""
    log_file = home / "server.log"
    server, url = start_prefect(home, claim_port(0, "a free port"), log_file=log_file, extra_env=environment)
    try:
        yield url
    finally:
        server.stop()
