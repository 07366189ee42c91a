"""A process for one run as a fresh interpreter.

Arguments of ``python -m services.executor.pool.spawned_process``: the descriptors for reports and orders, the shelf,
and the instruction as a line of `services.executor.messages`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import cast

from config.logs import speak_as_parent
from services.executor.messages import Instruction
from services.executor.pipes import from_line, prepare
from services.executor.pool.starters import carry_out


def main() -> None:
    """Carry out the instruction that the arguments hold."""
    reports, orders, shelf, line = sys.argv[1:]
    speak_as_parent("executor")
    prepare()  # while Sluice's modules can be found by their names: the flow's own packages take these names
    instruction = cast(Instruction, from_line(line.encode()))
    carry_out(instruction, int(reports), int(orders), environment=dict(os.environ), shelf=Path(shelf))


if __name__ == "__main__":
    main()
