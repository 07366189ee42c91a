"""Routes of the API other than those that accept events: listings, replays, approval links."""
