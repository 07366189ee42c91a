"""The RQ queues: the owner of `rq`, and the gate that every stored job passes."""
