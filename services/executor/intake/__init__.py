"""Which runs are executed here, and their way from Prefect to the queue."""
