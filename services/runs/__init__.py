"""The states of created runs, followed in Prefect until each event is finished."""
