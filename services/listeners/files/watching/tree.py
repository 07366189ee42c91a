"""Lists the directories of a watch for a watcher."""

from __future__ import annotations

import os

from services.listeners.files.folder import Folder


def directories_below(folder: Folder) -> tuple[list[str], bool]:
    """Return the directories to watch, and whether the watcher's library should add those below them.

    The library follows symbolic links to directories that exist when it begins. Where there are any, it gets every real
    directory one by one instead. Blocks for the time of reading all directories.
    """
    if not folder.source.recursive:
        return [os.fsdecode(folder.root)], False
    directories, stack, links = [folder.root], [b""], False
    while stack:
        below = stack.pop()
        try:
            with os.scandir(folder.absolute(below)) as entries:
                for entry in entries:
                    path = below + b"/" + entry.name if below else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        if not folder.is_ours(path):
                            stack.append(path)
                            directories.append(folder.absolute(path))
                    elif entry.is_symlink():
                        links = True
        except OSError:
            continue
    if not links:
        return [os.fsdecode(folder.root)], True
    return [path for path in map(os.fsdecode, directories) if _is_text(path)], False


def _is_text(path: str) -> bool:
    return path.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in path)
