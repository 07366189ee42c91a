"""Opens the file that an event announced, and no other file in its place."""

from __future__ import annotations

import errno
import functools
import io
import json
import os
import stat
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from sluice.directories import enter
from sluice.errors import FileChanged, FileRefused
from sluice.protocol import FILE_VARIABLE, FOLDERS_VARIABLE
from sluice.system_calls import made_ns, open_beneath

ALIASES: Final = b".sluice/names/"
"""Below a watched folder: Sluice's links to files whose names are not UTF-8; the only links that are followed."""


class _Announced(NamedTuple):
    """The announced attributes of a file; None if unknown."""

    path: str
    version: str | None
    size: int | None
    mtime: str | None


class OpenedFile(io.BufferedReader):
    """A binary file open for reading, with its version.

    Use it in a ``with`` block: leaving the block without an error verifies that the file has not changed meanwhile.
    """

    def __init__(self, descriptor: int, path: str) -> None:
        super().__init__(io.FileIO(descriptor, "rb"))
        self.path = path
        found = os.fstat(descriptor)
        self.size = found.st_size
        """In bytes, on the disk, before decompression."""
        self.version = _version(found)
        """``INODE-SIZE-MTIMENS``, as in the event attribute ``fileversion``."""
        self.made_ns = made_ns(descriptor)
        """When the file was created, in nanoseconds; None if the file system does not record it.

        A file that replaces another may get its inode, and with ``cp -p`` its modification time.
        """
        self._closed_as: str | None = None

    @property
    def name(self) -> str:
        """The path by which it was opened."""
        return self.path

    def verify(self) -> None:
        """Return if the file is unchanged since it was opened; raise `FileChanged` if it was written to."""
        now = self._closed_as or _version(os.fstat(self.fileno()))
        if now != self.version:
            raise FileChanged(
                f"the file {self.path} changed while it was read: it was {self.version} (inode-size-mtime) and is "
                f"{now} now; nothing of what was read may be used, and the new version has an event of its own"
            )

    def close(self) -> None:
        """Close it; `verify` still works afterwards, by the version at that time."""
        if not self.closed:
            self._closed_as = _version(os.fstat(self.fileno()))
        super().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.verify()
        finally:
            self.close()


def open_file(
    file: str | os.PathLike[str] | Mapping[str, Any],
    *,
    version: str | None = None,
    folders: Sequence[str | os.PathLike[str]] | None = None,
) -> OpenedFile:
    """Open the file that ``file`` names: a path, the data of a file event, or the whole event.

    The path must be in one of ``folders``: by default the watched folders of the project and those that the deployment
    names. Outside of a run that Prefect started, the default is the file's own folder. Below such a folder no symbolic
    link is followed, and the file must be a regular one. If the system lets users hard-link files that they may not
    read, a private file with several names is refused as well.

    The file must be the announced version: ``version`` (``INODE-SIZE-MTIMENS``), the event's ``fileversion``, the
    version for which this run was created, or at least the ``size`` and ``mtime`` of the event's data. If none of these
    is known, any version is accepted.

    Raises `FileRefused` for a path that may not be opened, `FileChanged` for another version than the announced one,
    and `OSError` if the file does not exist or cannot be read.
    """
    announced = _announced(file, version)
    root, relative = _place(announced.path, _folders(announced.path) if folders is None else folders)
    try:
        descriptor = open_beneath(root, _behind_alias(root, relative))
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.EXDEV}:
            raise FileRefused(
                f"the file {announced.path} is refused: it is, or lies behind, a symbolic link below "
                f"{os.fsdecode(root)}"
            ) from error
        raise OSError(error.errno, os.strerror(error.errno or 0), announced.path) from error
    try:
        _compare(announced, os.fstat(descriptor))
        os.set_blocking(descriptor, True)
        return OpenedFile(descriptor, announced.path)
    except BaseException:
        os.close(descriptor)
        raise


def watched_folder(path: str | os.PathLike[str]) -> tuple[str, str]:
    """Return the folder that contains the path, of those from which `open_file` opens files, and the path below it.

    Raises `FileRefused` if there is none.
    """
    absolute = os.path.abspath(os.fsdecode(path))
    root, relative = _place(absolute, _folders(absolute))
    return os.fsdecode(root), os.fsdecode(relative)


def directory_of(path: str | os.PathLike[str]) -> int:
    """Return a descriptor, which the caller closes, for the directory of a file to be written.

    Below its watched folder no link is followed, except those that root or this process's user made. Raises `OSError`,
    ELOOP for any other link.
    """
    try:
        root, relative = watched_folder(path)
    except FileRefused:
        root, relative = os.path.split(os.path.abspath(os.fsdecode(path)))
    return enter(os.fsencode(root), os.fsencode(os.path.dirname(relative)), own_links=True)


def _behind_alias(root: bytes, relative: bytes) -> bytes:
    """Return the file that an alias of Sluice's stands for; any other path unchanged."""
    if not relative.startswith(ALIASES) or relative.count(b"/") != ALIASES.count(b"/"):
        return relative
    directory = enter(root, ALIASES.rstrip(b"/"))
    try:
        target = os.readlink(relative[len(ALIASES) :], dir_fd=directory)
    finally:
        os.close(directory)
    if not target.startswith(b"../../"):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fsdecode(relative))
    return target[len(b"../../") :]


def _announced(file: str | os.PathLike[str] | Mapping[str, Any], version: str | None) -> _Announced:
    if not isinstance(file, Mapping):
        path = os.path.abspath(os.fsdecode(file))
        return _Announced(path, version or _version_of_run(path), None, None)
    data = file.get("data") if "path" not in file else file
    if not isinstance(data, Mapping) or not isinstance(data.get("path"), str):
        raise FileRefused("this is no event of a file: its data has no `path`")
    path = os.path.abspath(data["path"])
    extensions = file.get("extensions")
    known = file.get("fileversion") or (extensions.get("fileversion") if isinstance(extensions, Mapping) else None)
    size, mtime = data.get("size"), data.get("mtime")
    return _Announced(
        path,
        version or (known if isinstance(known, str) else None) or _version_of_run(path),
        size if isinstance(size, int) else None,
        mtime if isinstance(mtime, str) else None,
    )


def _version_of_run(path: str) -> str | None:
    """Return the version that was announced for this run, if the run belongs to that file."""
    try:
        announced = json.loads(os.environ.get(FILE_VARIABLE, "null"))
    except ValueError:
        return None
    if not isinstance(announced, dict) or os.path.abspath(str(announced.get("path"))) != path:
        return None
    return str(announced.get("version"))


def _folders(path: str) -> Sequence[str]:
    named = os.environ.get(FOLDERS_VARIABLE)
    if named is None:
        if "PREFECT__FLOW_RUN_ID" not in os.environ:
            return [os.path.dirname(path)]
        raise FileRefused(
            f"the file {path} is refused: no folder is named that files may be read from; set {FOLDERS_VARIABLE} to a "
            'JSON list of folders, such as ["/data/inbox"], where this run is executed'
        )
    try:
        folders = json.loads(named)
    except ValueError:
        folders = None
    if not isinstance(folders, list) or not all(isinstance(one, str) for one in folders):
        raise FileRefused(f"{FOLDERS_VARIABLE} is not a JSON list of folders: {named[:200]!r}")
    return folders


def _place(path: str, folders: Sequence[str | os.PathLike[str]]) -> tuple[bytes, bytes]:
    """Return the innermost folder that contains the path, and the path below it."""
    try:
        wanted = os.fsencode(path)
    except UnicodeEncodeError as error:
        raise FileRefused(f"the file {path} is refused: no file can have this name") from error
    if b"\0" in wanted:  # system calls would end the name there
        raise FileRefused(f"the file {path} is refused: no file can have this name")
    found: list[tuple[int, bytes, bytes]] = []
    for folder in folders:
        root = os.path.abspath(os.fsencode(folder))
        for spelling in {root, os.path.realpath(root)}:
            prefix = spelling.rstrip(b"/") + b"/"
            if wanted.startswith(prefix) and len(wanted) > len(prefix):
                found.append((len(prefix), root, wanted[len(prefix) :]))
    if not found:
        known = ", ".join(os.fsdecode(folder) for folder in folders) or "none"
        raise FileRefused(
            f"the file {path} is refused: it lies in no watched folder of the project (they are: {known}); a "
            'deployment names others with `"folders": [...]` in DEPLOYMENT'
        )
    _, root, relative = max(found)
    return root, relative


def _compare(announced: _Announced, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise FileRefused(f"the file {announced.path} is refused: it is not a regular file")
    if found.st_nlink > 1 and not found.st_mode & stat.S_IROTH and not _protects_hard_links():
        raise FileRefused(
            f"the file {announced.path} is refused: it has {found.st_nlink} names, not everybody may read it, and this "
            "system lets anybody give a name to any file (fs.protected_hardlinks): copy the file instead of linking it"
        )
    now = _version(found)
    if announced.version is not None and announced.version != now:
        was = announced.version
    elif announced.size is not None and announced.size != found.st_size:
        was = f"{announced.size} bytes long"
    elif announced.mtime is not None and not _same_time(announced.mtime, found.st_mtime_ns):
        was = f"of {announced.mtime}"
    else:
        return
    raise FileChanged(
        f"the file {announced.path} has changed since it was announced: it was {was} and is {now} (inode-size-mtime) "
        "now; the new version has an event, and so a run, of its own"
    )


@functools.cache
def _protects_hard_links() -> bool:
    """Whether the system lets users link only files that they may read and write, as Linux does unless told not to."""
    try:
        with open("/proc/sys/fs/protected_hardlinks", encoding="ascii") as file:
            return file.read().strip() != "0"
    except OSError:
        return False


def _same_time(mtime: str, mtime_ns: int) -> bool:
    """Whether an event's ``mtime``, which is exact to the microsecond, is that of the file."""
    try:
        announced = datetime.fromisoformat(mtime)
        found = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=mtime_ns // 1000)
    except (ValueError, OverflowError):
        return True  # beyond the calendar: size and inode must do
    return announced.tzinfo is None or announced == found


def _version(found: os.stat_result) -> str:
    return f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"
