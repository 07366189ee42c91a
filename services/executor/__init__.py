"""The executor: the runner of deployments that name no work pool.

An intake hears of scheduled runs and queues them; slots, forked from a fork server, take them from the queue; each run
gets a run process, a process of its own. See docs/executor.md.
"""
