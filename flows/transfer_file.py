"""Upload a file to object storage, or download one: any two fsspec addresses, with a checksum and long retries.

Needs the library of the remote side (``s3fs`` for ``s3://``, ``gcsfs`` for ``gs://``, ``adlfs`` for ``abfs://``) and a
Secret block with its options.
"""

from __future__ import annotations

from typing import Any

from prefect import State, flow
from prefect.states import Completed

from sluice import run_name, visible
from tasks.storage import copy_object


@flow(name="transfer-file", flow_run_name=run_name("{source} to {target}"))
def transfer_file(source: str, target: str, credentials: str | None = None) -> State[dict[str, Any]]:
    """Copy ``source`` to ``target``, each a local path or an address such as ``s3://bucket/key``.

    Needs the library of the address (``s3fs`` for S3). ``credentials`` names a Secret block with the options of the
    remote file system as a JSON object:
    ``{"key": …, "secret": …}`` for S3, and ``"client_kwargs": {"endpoint_url": …}`` for another provider. Nine tries in
    about an hour; the target is read back and compared.
    """
    copied = copy_object(source, target, credentials)
    return Completed(message=visible(f"{copied['bytes']} bytes of {source} are in {target}", 1000), data=copied)
