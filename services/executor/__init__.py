"""The executor: the runner of deployments that name no work pool.

The intake receives scheduled runs and queues them; slots, forked from a fork server, take them from the queue; each run
gets a process of its own, its run process. See docs/executor.md.
"""

import services.store  # noqa: F401 - it imports redis-py, without what that would import in vain
