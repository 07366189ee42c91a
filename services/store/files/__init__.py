"""The file ledger in Redis: which version of which file was announced, and what became of it."""
