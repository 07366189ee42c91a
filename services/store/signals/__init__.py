"""Signals in Redis: submitted, applied, told; and the runs that wait for them."""
