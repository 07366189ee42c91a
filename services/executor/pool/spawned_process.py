"""A run process, or a finalizer, as a fresh interpreter.

Arguments of ``python -m services.executor.pool.spawned_process``: the run's id, the descriptors
for reports and intents, then ``name=value`` for the rest.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from services.executor.pool.starters import be_finalizer, be_flow_run, be_observer


def main() -> None:
    """Run the process that the arguments describe."""
    run_id, reports, intents, *rest = sys.argv[1:]
    options = dict(argument.split("=", 1) for argument in rest)
    environment = dict(os.environ)
    shelf = Path(options["shelf"])
    if "ending" in options:
        be_finalizer(run_id, options["ending"], options["message"], environment=environment, shelf=shelf)
    if "observe" in options:
        be_observer(run_id, int(reports))
    be_flow_run(
        run_id,
        int(reports),
        int(intents),
        name=options["name"],
        environment=environment,
        shelf=shelf,
        claimed="claimed" in options,
        watched="alone" not in options,
        queued=json.loads(options.get("queued", "null")),
    )


if __name__ == "__main__":
    main()
