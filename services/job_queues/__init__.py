"""The RQ queues: the owner of `rq`, and the gate that every stored job passes."""

import services.store  # noqa: F401 - it imports redis-py, without what that would import in vain
