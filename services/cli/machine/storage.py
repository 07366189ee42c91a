"""`sluice storage`: shows which data is stored where, how much it is, and what limits it."""

from __future__ import annotations

from dataclasses import asdict

from services.cli.output import say, show_json, show_rows, show_title, size_text
from services.cli.session import open_session
from services.cli.terminal.options import AsJson


async def storage(as_json: AsJson = False) -> None:
    """Show the data in Redis, in the home and in the watched folders: how much, since when, and for how long."""
    import asyncio

    from config.project import load_project
    from services.cli.machine.measuring import disks, in_folders, in_redis

    async with open_session() as session:
        settings = session.settings
        project = load_project(settings.config, home=settings.home)
        kept = await in_redis(session.redis, settings)
        kept += await asyncio.to_thread(in_folders, settings, project)
        room = await asyncio.to_thread(disks, settings, project)
    if as_json:
        show_json({"kept": [asdict(row) for row in kept], "disks": room})
        return
    rows = [
        {"what": one.what, "count": one.count, "size": size_text(one.size), "oldest": one.oldest, "kept": one.kept}
        for one in kept
    ]
    show_rows(rows, ("what", "count", "size", "oldest", "kept"), as_json=False)
    show_title("disks")
    for disk in room:
        free, size = size_text(disk["free"]), size_text(disk["size"])
        say(f"{disk['path']}: {free} of {size} free; no file is taken below {size_text(disk['stops_below'])}")
