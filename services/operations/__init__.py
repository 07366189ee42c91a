"""How an installation is watched and kept: health reports, readiness, status, metrics, retention, inspection."""
