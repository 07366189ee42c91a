"""Filters and rows of events, runs, signals and dead letters, shared by the command line and the API."""
