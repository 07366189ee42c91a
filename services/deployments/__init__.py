"""The project's flows as deployments: read from ``flows/``, checked, compared with Prefect, registered."""
