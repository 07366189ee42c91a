"""The reference flows: one file each, plain Prefect, importing only data libraries and `sluice`."""
