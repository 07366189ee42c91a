"""systemd: the unit of a project, and notifications."""
