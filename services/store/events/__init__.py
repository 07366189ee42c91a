"""Events in Redis: the journal, what became of each event, and how it ended."""
