"""What Prefect shows of the installation beyond its runs: events in its feed, and a page."""
