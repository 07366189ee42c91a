"""Act on one call of the webhook."""

from typing import Any

from prefect import flow, get_run_logger

from sluice import visible


@flow(name="handle-hook")
def handle_hook(payload: dict[str, Any]) -> str:
    """Say what was received; a real flow would do something with it."""
    said = f"received {', '.join(sorted(payload)) or 'nothing'}"
    get_run_logger().info(visible(said))
    return said
