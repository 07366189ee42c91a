"""Puts an archived file back where it arrived: only the very version that was archived, and never over another file.

A repeated call completes what an earlier one, which was killed, has begun.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from contextlib import ExitStack
from typing import Final

from services.common.file_version import Version
from services.listeners.files.archiving.file_mover import is_of, sidecar_of
from services.listeners.files.archiving.places import entered
from services.listeners.files.archiving.rename import FilePlace, rename_new, sync_directory
from services.listeners.files.arriving.unready_files import shown
from services.listeners.files.folder import Folder
from services.store.events.archived_file import ArchivedFile
from sluice.directories import enter

_NO_FILE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


def obstacle(folder: Folder, file: ArchivedFile) -> str | None:
    """Why the file cannot be put back; None if it can be, or lies at its path already."""
    where = shown(file.place)
    if file.fate == "deleted":
        return f"the file {shown(file.path)} was deleted after its run"
    if file.version != file.announced:
        return (
            f"{where} is a copy of the file that was announced, because it lies on another file system, or was touched "
            f"meanwhile: move it back to {shown(file.path)} by hand, and it runs as a new file"
        )
    return None if _lies_at(folder, file.path, file.version) else _difference(folder, file)


def _difference(folder: Folder, file: ArchivedFile) -> str | None:
    """Why what lies at the file's place is not what was archived."""
    where = shown(file.place)
    try:
        with ExitStack() as stack:
            found = _stat(_place(stack, folder, file.place))
    except OSError as error:
        if error.errno not in _NO_FILE:
            return f"{where} cannot be looked at: {error.strerror}"
        return f"{where} is gone: it was moved or deleted after it was archived"
    if not stat.S_ISREG(found.st_mode) or str(Version.of(found)) != file.version:
        return (
            f"{where} has changed since it was archived: it was {file.version} (inode-size-mtime) and is "
            f"{Version.of(found)} now; moved to {shown(file.path)} it runs as a new file"
        )
    return None


def put_back(folder: Folder, file: ArchivedFile, event_id: str) -> str | None:
    """Move the file to its path, and delete its sidecar; None when it lies there, else why it does not."""
    if (problem := obstacle(folder, file)) is not None:
        return problem
    try:
        with ExitStack() as stack:
            if not _lies_at(folder, file.path, file.version):
                archived = _place(stack, folder, file.place)
                home = FilePlace(
                    entered(stack, enter(folder.root, os.path.dirname(file.path), make=True)),
                    os.path.basename(file.path),
                )
                rename_new(archived, home)
                if str(Version.of(_stat(home))) != file.version:  # somebody was faster, between the look and the move
                    rename_new(home, archived)
                    return f"{shown(file.place)} was replaced just now"
                sync_directory(home.directory)
            if file.place != file.path:
                _drop_sidecar(folder, file.place, event_id)
    except FileExistsError:
        return f"another file is at {shown(file.path)} now"
    except OSError as error:
        return f"{shown(file.place)} cannot be moved back to {shown(file.path)}: {error.strerror or error}"
    return None


def _place(stack: ExitStack, folder: Folder, path: bytes) -> FilePlace:
    directory = entered(stack, enter(folder.root, os.path.dirname(path), own_links=True))
    return FilePlace(directory, os.path.basename(path))


def _stat(place: FilePlace) -> os.stat_result:
    return os.stat(place.name, dir_fd=place.directory, follow_symlinks=False)


def _lies_at(folder: Folder, path: bytes, version: str) -> bool:
    try:
        with ExitStack() as stack:
            found = _stat(_place(stack, folder, path))
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and str(Version.of(found)) == version


def _drop_sidecar(folder: Folder, place: bytes, event_id: str) -> None:
    with contextlib.suppress(OSError), ExitStack() as stack:
        archived = _place(stack, folder, place)
        beside = FilePlace(archived.directory, sidecar_of(archived.name))
        if is_of(beside, event_id):
            os.unlink(beside.name, dir_fd=beside.directory)
        sync_directory(archived.directory)
