"""The file ledger in Redis: the announced version of each file, and its result."""
