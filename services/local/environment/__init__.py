"""The environment of Python packages that Sluice runs in, and that of the project's flows."""
