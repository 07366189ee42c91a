"""Signals in Redis: submitted, applied, published; and the runs that wait for them."""
