"""The running parts of Sluice; `services.app` joins them, `services.cli` is how people reach them."""

from __future__ import annotations

import os
import sys
from typing import Final

LIBRARIES: Final = "_SLUICE_LIBRARIES"
"""The variable with the folders of Sluice's own libraries, in a process that runs in another environment
(see `services.local.environment.flows_environment`): what that environment lacks is imported from there."""

sys.path += [entry for entry in os.environ.get(LIBRARIES, "").split(os.pathsep) if entry and entry not in sys.path]
