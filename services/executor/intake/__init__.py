"""The intake: which runs are executed here, and how they get from Prefect to the runs queue."""
