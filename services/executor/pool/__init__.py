"""The processes of the executor: fork servers, slots, and handles of run processes."""
