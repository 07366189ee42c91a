"""What the API tells and does beside taking events in: listings, replays, approval links."""
