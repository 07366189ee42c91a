"""The Lua scripts: each in a file under ``lua/``, called by the names that its header gives to its keys and arguments.

A file begins with its flags, if it has any, with sentences that say what it does, and with its header::

    #!lua flags=allow-oom
    -- Queues dispatches and notifies the dispatcher.
    -- USES: queues
    -- KEYS: lease, counter
    -- ARGV: now_ms, dispatches[queue, payload], lines[line]

``USES`` names files of ``lua/shared/`` whose functions it calls. Each name in ``KEYS`` and ``ARGV`` is a local variable
that holds text. A name with brackets is a list, and comes after the others: in Lua a function to loop over (``for
queue, payload in dispatches() do``), in Python a sequence of rows, or of values where a row has one column. With
``allow-oom`` a script also runs when ``maxmemory`` is reached, to complete accepted work.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from services.store.connection import AsyncRedis, SyncRedis, execute_and_replicate, replicas_to_wait_for
from services.store.redis_errors import ScriptGone

FOLDER: Final = Path(__file__).resolve().parent / "lua"
EVEN_WHEN_FULL: Final = "#!lua flags=allow-oom\n"

_FILE: Final = re.compile(r"(#!.*\n)?((?:--.*\n)+)((?s:.*))")
_SECTION: Final = re.compile(r"^-- (USES|KEYS|ARGV): (.*(?:\n--  .*)*)$", re.MULTILINE)
_NAME: Final = re.compile(r"\s*([a-z]\w*)(\[[^]]*\])?\s*(?:,|$)")


class Script:
    """The script ``lua/NAME.lua``, with other ``flags`` if some are given; raises ValueError for a bad header.

    ``keys`` and ``arguments`` are the names of its header, each with the number of columns of a list, or 0.
    """

    def __init__(self, name: str, *, flags: str | None = None) -> None:
        found = _FILE.fullmatch((FOLDER / f"{name}.lua").read_text(encoding="utf-8"))
        if found is None:
            raise ValueError(f"{name}.lua does not begin with what it does")
        sections = {match[1]: _names(name, match[2].replace("\n--", "")) for match in _SECTION.finditer(found[2])}
        self.name = name
        self.body: str = found[3]
        self.keys, self.arguments = sections.get("KEYS", {}), sections.get("ARGV", {})
        if self.keys.keys() & self.arguments.keys() or any(self.keys.values()):
            raise ValueError(f"{name}.lua: a key is neither a list nor the name of an argument, too")
        self.shared: dict[str, str] = {}
        for used in [*sections.get("USES", {}), *(["lists"] if any(self.arguments.values()) else [])]:
            other = Script(f"shared/{used}")
            self.shared |= other.shared | {used: other.body}
        flags = (found[1] or "") if flags is None else flags
        self.text = flags + "".join(self.shared.values()) + self._locals() + self.body
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, client: AsyncRedis | SyncRedis, /, **values: Any) -> Any:
        """Run the script, which the server need not know; an awaitable if the client is asynchronous.

        Raises TypeError, before anything is sent, unless exactly the names of the header are given.
        """
        keys, arguments = self.split(values)
        if isinstance(client, SyncRedis):
            return client.register_script(self.text)(keys=keys, args=arguments)
        return self._run(client, keys, arguments)

    async def _run(self, client: AsyncRedis, keys: Sequence[Any], arguments: Sequence[Any]) -> Any:
        with contextlib.suppress(ScriptGone):
            return await client.evalsha(self.sha, len(keys), *keys, *arguments)
        await client.script_load(self.text)
        return await client.evalsha(self.sha, len(keys), *keys, *arguments)

    def split(self, values: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
        """Return the values as KEYS and ARGV."""
        if values.keys() != (names := self.keys.keys() | self.arguments.keys()):
            missing, unknown = sorted(names - values.keys()), sorted(values.keys() - names)
            raise TypeError(f"the script {self.name} is not called by its names: missing {missing}, unknown {unknown}")
        arguments: list[Any] = []
        for name, columns in self.arguments.items():
            if not columns:
                arguments.append(values[name])
                continue
            rows = list(values[name]) if columns > 1 else [(value,) for value in values[name]]
            if any(len(row) != columns for row in rows):
                raise TypeError(f"the script {self.name} wants {columns} values in each row of {name}")
            arguments += [len(rows), *(value for row in rows for value in row)]
        return [values[name] for name in self.keys], arguments

    def _locals(self) -> str:
        """The header's names as local variables of Lua."""
        single = [name for name, columns in self.arguments.items() if not columns]
        lines = [
            f"local {', '.join(names)} = {', '.join(f'{table}[{at}]' for at in range(1, len(names) + 1))}\n"
            for table, names in (("KEYS", list(self.keys)), ("ARGV", single))
            if names
        ]
        lists = [f"local {name} = list_of({columns})\n" for name, columns in self.arguments.items() if columns]
        lines += [f"behind = {len(single) + 1}\n", *lists] if lists else []
        return "".join(lines)


async def run_all(client: AsyncRedis, script: Script, calls: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Run the script for each call, in order, in one round trip; return each result.

    It is loaded in the same round trip, which is cheaper than to ask whether it is loaded.
    """
    pipeline = client.pipeline(transaction=False)
    pipeline.script_load(script.text)
    for values in calls:
        keys, arguments = script.split(values)
        pipeline.evalsha(script.sha, len(keys), *keys, *arguments)
    answers: list[Any] = await pipeline.execute()
    return answers[1:]


async def run_and_replicate(client: AsyncRedis, script: Script, /, **values: Any) -> Any:
    """Run a script and wait for the replicas, as `execute_and_replicate`; each call must write, even a repeated one."""
    if not replicas_to_wait_for(client).number:
        return await script(client, **values)
    keys, arguments = script.split(values)
    pipeline = client.pipeline(transaction=False)
    pipeline.script_load(script.text)
    pipeline.evalsha(script.sha, len(keys), *keys, *arguments)
    return (await execute_and_replicate(client, pipeline))[-1]


def _names(script: str, section: str) -> dict[str, int]:
    """The names of a section, each with its number of columns."""
    found = {match[1]: match[2].count(",") + 1 if match[2] else 0 for match in _NAME.finditer(section)}
    left = _NAME.sub("", section)
    if left or len(found) < len(_NAME.findall(section)) or sorted(found.values(), key=bool) != list(found.values()):
        raise ValueError(f"{script}.lua: {section!r} is not a list of different names, with lists at its end")
    return found
