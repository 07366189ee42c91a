"""What each installation does for itself at intervals: retention, repair, the quarantine of unreadable data."""
