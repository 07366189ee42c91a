"""The two parts of each router that show the installation in Prefect."""

from __future__ import annotations

from functools import partial

from config.settings import Settings
from services.home.prefect_pages import overview_key
from services.operations.in_prefect.artifact import MarkdownArtifact
from services.operations.in_prefect.feed import PrefectFeed
from services.operations.in_prefect.overview_job import OverviewJob
from services.operations.readiness import CachedReadiness, read_readiness
from services.operations.upkeep.leased_job import LEASE_SECONDS
from services.prefect_api.client import PrefectApi
from services.store.connection import AsyncRedis
from services.store.lease import Lease


def in_prefect(
    redis: AsyncRedis, prefect: PrefectApi, *, settings: Settings, project: str | None
) -> dict[str, PrefectFeed | OverviewJob]:
    """Build them. They do not check whether Prefect is healthy: a failed write is repeated later."""
    readiness = CachedReadiness(partial(read_readiness, redis, settings))
    return {
        "feed": PrefectFeed(
            redis=redis,
            prefect=prefect,
            readiness=readiness.read,
            lease=Lease(redis, "prefect-feed", ttl_seconds=LEASE_SECONDS),
        ),
        "overview": OverviewJob(
            redis=redis,
            prefect=prefect,
            readiness=readiness.read,
            lease=Lease(redis, "overview", ttl_seconds=LEASE_SECONDS),
            artifact=MarkdownArtifact(prefect, key=overview_key(project)),
            project=project,
        ),
    }
