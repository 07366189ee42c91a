"""The executor: the runner of deployments that name no work pool.

An intake hears of scheduled runs and queues them; slots, forked from a warm parent, take them from the queue; each run
gets a work-horse, a process of its own. See docs/executor.md.
"""
