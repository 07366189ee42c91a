"""What the flows share: policies, and tasks that any of them may call. Plain Prefect, data libraries and `sluice`."""
