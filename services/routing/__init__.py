"""From journalled events to decisions: the router, rules, windows, poison checks, replays."""
