"""A store or a server that fails for one command, at a chosen moment."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from events.errors import TransientError


def fails_once(
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    name: str,
    *,
    when: Callable[[], bool] = lambda: True,
    error: type[BaseException] = TransientError,
) -> list[str]:
    """Have a method raise, the first time that ``when`` holds, as if its server were away for that moment.

    Answers a list that has an entry when it has done so. An async generator fails before its first value.
    """
    inner, failed = getattr(owner, name), list[str]()

    def fail() -> None:
        if when() and not failed:
            failed.append(name)
            raise error("away for a moment")

    async def method(self: Any, *args: Any, **options: Any) -> Any:
        fail()
        return await inner(self, *args, **options)

    async def generator(self: Any, *args: Any, **options: Any) -> AsyncIterator[Any]:
        fail()
        async for value in inner(self, *args, **options):
            yield value

    monkeypatch.setattr(owner, name, generator if inspect.isasyncgenfunction(inner) else method)
    return failed
