"""The project's flows as deployments: read from ``flows/``, checked whole, held against Prefect, registered."""
