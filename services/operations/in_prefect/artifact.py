"""Artifacts of Prefect that are kept up to date: a single version, which is replaced."""

from __future__ import annotations

from events.errors import NotFound
from services.prefect_api.client import PrefectApi


class MarkdownArtifact:
    """A markdown artifact under a key, which has a page of its own in Prefect's UI.

    Raises as `PrefectApi.request`.
    """

    def __init__(self, api: PrefectApi, *, key: str) -> None:
        self._api = api
        self._key = key
        self._id: str | None = None

    async def write(self, text: str) -> None:
        """Set the artifact's text."""
        body = {"data": text, "description": text}  # the page of the key shows the description
        if self._id is None:
            asked = {"artifacts": {"key": {"any_": [self._key]}}, "sort": "CREATED_DESC", "limit": 1}
            found = await self._api.request("POST", "/artifacts/filter", once=True, json=asked)
            self._id = str(found[0]["id"]) if found else None
        if self._id is not None:
            try:
                await self._api.request("PATCH", f"/artifacts/{self._id}", once=True, json=body)
            except NotFound:  # somebody has deleted it
                self._id = None
        if self._id is None:
            whole = {**body, "key": self._key, "type": "markdown"}
            self._id = str((await self._api.request("POST", "/artifacts/", once=True, json=whole))["id"])
