"""What the command line and the API list: events, runs, signals, dead letters; the same filters, the same rows."""
