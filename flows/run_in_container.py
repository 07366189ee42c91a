"""One command in a container: for a tool that must not live beside the flows.

Needs a Docker host: the socket of this machine, or ``DOCKER_HOST``. A whole flow in a container is the
job of a work pool of Prefect, of the type docker or kubernetes.
"""

from __future__ import annotations

from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound
from prefect import State, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from sluice import run_name, visible


class NoDockerHost(RuntimeError):
    """No container can be started from here."""


@task(cache_policy=NO_CACHE, task_run_name="container")
def run_container(image: str, command: list[str], memory_mb: int, time_seconds: int) -> int:
    """Run the command without a network, log its output, and answer its exit code; the container is removed."""
    try:
        client = docker.from_env(timeout=time_seconds)
    except DockerException as error:
        raise NoDockerHost(
            "there is no Docker host to start a container on: install Docker here, or set DOCKER_HOST to one "
            f"({type(error).__name__})"
        ) from None
    with client:
        try:
            container: Any = client.containers.run(
                image, command, detach=True, network_disabled=True, mem_limit=f"{memory_mb}m"
            )
        except (ImageNotFound, APIError) as error:
            raise RuntimeError(visible(f"the image {image} cannot be run: {error.explanation}")) from None
        try:
            for line in container.logs(stream=True, follow=True):
                get_run_logger().info("%s", visible(line.decode(errors="replace").rstrip()))
            return int(container.wait()["StatusCode"])
        finally:
            container.remove(force=True)


@flow(name="run-in-container", flow_run_name=run_name("container {image}"))
def run_in_container(
    image: str = "alpine:3", command: list[str] | None = None, memory_mb: int = 256, time_seconds: int = 600
) -> State[int]:
    """Run one command in a container and log what it prints; fails where its exit code is not 0.

    Needs a Docker host, and says so where there is none.
    """
    code = run_container(image, command or ["echo", "hello"], memory_mb, time_seconds)
    if code:
        raise RuntimeError(visible(f"the command in {image} ended with the exit code {code}: its output is in the log"))
    return Completed(message=visible(f"the command in {image} is done"), data=code)


if __name__ == "__main__":
    run_in_container()
