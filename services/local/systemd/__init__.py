"""systemd: the unit that it runs a project by, and what it is told."""
