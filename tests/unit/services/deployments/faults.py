"""What reading the declarations of a project finds fault with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from events.errors import ConfigError
from services.deployments.declared import Declarations


def faults(read: Callable[[], Declarations], root: Path) -> list[str]:
    with pytest.raises(ConfigError) as error:
        read()
    return [problem.replace(f"{root}/flows/", "") for problem in error.value.problems]
