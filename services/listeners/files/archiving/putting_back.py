"""Moves an archived file back to where it arrived: only the version that was archived, and never over another file.

A repeated call completes an earlier one that was interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from services.common.file_version import Version
from services.listeners.files.archiving.file_mover import is_of, sidecar_of
from services.listeners.files.archiving.rename import FilePlace, rename_new, sync_directory
from services.listeners.files.arriving.unready_files import shown
from services.listeners.files.folder import Folder
from services.store.events.archived_file import ArchivedFile

_NO_FILE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


def _obstacle(folder: Folder, file: ArchivedFile) -> str | None:
    """Return why the file cannot be moved back; None if it can be, or is at its path already."""
    where = shown(file.place)
    if file.fate == "deleted":
        return f"the file {shown(file.path)} was deleted after its run"
    if file.version != file.announced:
        return (
            f"{where} is a copy of the file that was announced, because it lies on another file system, or was touched "
            f"meanwhile: move it back to {shown(file.path)} by hand, and it runs as a new file"
        )
    return None if _lies_at_home(folder, file) else _difference(folder, file)


def _difference(folder: Folder, file: ArchivedFile) -> str | None:
    """Return how the file at this place differs from the one that was archived."""
    where = shown(file.place)
    try:
        with _place(folder, file.place) as place:
            found = place.stat()
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
    """Move the file to its path and delete its sidecar; return None on success, else the reason."""
    if (problem := _obstacle(folder, file)) is not None:
        return problem
    try:
        if not _lies_at_home(folder, file):
            above, name = os.path.split(file.path)
            with _place(folder, file.place) as archived, folder.entered(above, make=True) as directory:
                home = FilePlace(directory, name)
                rename_new(archived, home)
                if str(home.version()) != file.version:  # somebody replaced the file between the check and the move
                    rename_new(home, archived)
                    return f"{shown(file.place)} was replaced just now"
                sync_directory(directory)
        if file.place != file.path:
            _drop_sidecar(folder, file.place, event_id)
    except FileExistsError:
        return f"another file is at {shown(file.path)} now"
    except OSError as error:
        return f"{shown(file.place)} cannot be moved back to {shown(file.path)}: {error.strerror or error}"
    return None


@contextmanager
def _place(folder: Folder, path: bytes) -> Iterator[FilePlace]:
    above, name = os.path.split(path)
    with folder.entered(above, own_links=True) as directory:
        yield FilePlace(directory, name)


def _lies_at_home(folder: Folder, file: ArchivedFile) -> bool:
    try:
        with _place(folder, file.path) as place:
            found = place.stat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and str(Version.of(found)) == file.version


def _drop_sidecar(folder: Folder, place: bytes, event_id: str) -> None:
    with contextlib.suppress(OSError), _place(folder, place) as archived:
        beside = archived.beside(sidecar_of(archived.name))
        if is_of(beside, event_id):
            beside.unlink()
        sync_directory(archived.directory)
