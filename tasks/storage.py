"""Files to and from object storage, by fsspec addresses: ``s3://bucket/key``, ``gs://…``, or a local path."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import fsspec
from prefect import task
from prefect.cache_policies import NO_CACHE

from sluice import FileRefused, open_file, visible
from tasks.credentials import secret_of
from tasks.retries import UPLOAD, Unavailable

CHUNK_BYTES: Final = 8 * 1024**2
"""Read at a time."""
PART_BYTES = 32 * 1024**2
"""Sent at a time, as one part of a multipart upload: S3 takes 10,000 parts, together 312 GiB of these."""
UNREACHED: Final = frozenset(
    {"ConnectionError", "HTTPClientError", "ClientConnectionError", "ServiceRequestError", "ServiceResponseError"}
)
"""Names of the classes by which botocore, aiohttp and Azure's library say that nobody answered; no `OSError`, all of
them."""


def storage_options(block: str | None) -> Mapping[str, Any]:
    """What the file system is opened with: the JSON object of a Secret block, such as ``{"key": …, "secret": …}``."""
    if block is None:
        return {}
    secret = secret_of(block, "STORAGE_OPTIONS").get_secret_value()
    try:
        options = json.loads(secret)
    except ValueError:
        options = None
    if isinstance(options, dict):
        return options
    raise ValueError(f"the Secret block {block} holds no JSON object: write the options of the file system into it")


@task(**UPLOAD, cache_policy=NO_CACHE, task_run_name="copy an object")
def copy_object(source: str, target: str, credentials: str | None = None) -> dict[str, Any]:
    """Copy ``source`` to ``target`` in parts, read it back and compare; the target appears when it is complete.

    ``credentials`` names a Secret block, whose options go to the remote side. A local source is opened as
    `sluice.open_file` allows. Raises `Unavailable` where nobody answers, `PermissionError` where the storage refuses,
    and `ValueError` where the two differ, or no library is there for an address.
    """
    options = storage_options(credentials)
    digest, size = hashlib.sha256(), 0
    with _explained(f"{source} to {target}", credentials):
        with _reading(source, options) as read:
            files, path = _file_system(target, options)
            if "file" in files.protocol:  # of object storage, this would make the bucket that a typing error names
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            with files.transaction, files.open(path, "wb", block_size=PART_BYTES) as written:
                while chunk := read.read(CHUNK_BYTES):
                    digest.update(chunk)
                    size += len(chunk)
                    written.write(chunk)
        if _digest(target, options) != digest.hexdigest():
            raise ValueError(f"{visible(target)} is not what was written: its SHA-256 differs")
    return {"target": target, "bytes": size, "sha256": digest.hexdigest()}


@contextmanager
def _explained(copying: str, credentials: str | None) -> Iterator[None]:
    """Say of what the libraries raise which copy it was, and what can be done about it."""
    try:
        yield
    except Exception as error:
        kinds = {kind.__name__ for kind in type(error).__mro__}
        what = visible(f"{copying}: {error}", 1000)
        if kinds & UNREACHED:
            raise Unavailable(what) from None
        if kinds & {"PermissionError", "NoCredentialsError"} and not isinstance(error, FileRefused):
            block = f"the Secret block {credentials}" if credentials else "its Secret block: none is named"
            raise PermissionError(f"{what}; look at {block}, and at what its owner may do there") from None
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError(f"{what}; look at the name, and for object storage at the bucket's") from None
        raise


def _file_system(address: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    remote = "://" in address and not address.startswith("file://")
    try:
        files, path = fsspec.url_to_fs(address, **(options if remote else {}))
    except (ImportError, ValueError) as error:
        scheme = address.partition("://")[0]
        raise ValueError(f"{visible(scheme)}:// cannot be opened: {error}; install its library beside Sluice") from None
    files.invalidate_cache()
    return files, path


@contextmanager
def _reading(address: str, options: Mapping[str, Any]) -> Iterator[IO[bytes]]:
    files: Any = None
    if "://" in address:
        files, address = _file_system(address, options)
    local = files is None or "file" in files.protocol
    with open_file(address) if local else files.open(address, "rb", block_size=CHUNK_BYTES) as file:
        yield file


def _digest(address: str, options: Mapping[str, Any]) -> str:
    files, path = _file_system(address, options)
    digest = hashlib.sha256()
    with files.open(path, "rb", block_size=CHUNK_BYTES) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
