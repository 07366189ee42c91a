"""Determines the user of the process at the other end of a connection on this machine."""

from __future__ import annotations

import os
import struct
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Final

_ESTABLISHED: Final = "01"
_STATE, _UID = 3, 7


def is_own_user(client: tuple[str, int] | None, server: tuple[str, int] | None) -> bool:
    """Whether a process of this process's user holds the client's end; false if unknown, as outside of Linux.

    Only an established connection counts: the kernel reports root as the owner of one that its process has left.
    """
    if client is None or server is None:
        return False
    try:
        address = ip_address(client[0])
        if not address.is_loopback:
            return False
        table = Path("/proc/net/tcp" if isinstance(address, IPv4Address) else "/proc/net/tcp6")
        ends = [_end(*client), _end(*server)]
        for line in table.read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[1:3] == ends:
                return fields[_STATE] == _ESTABLISHED and int(fields[_UID]) == os.geteuid()
    except (OSError, ValueError, IndexError):
        return False
    return False


def _end(host: str, port: int) -> str:
    """Return the address as the kernel writes it: its words in this machine's byte order, in hexadecimal."""
    packed = ip_address(host).packed
    return "".join(f"{word:08X}" for word in struct.unpack(f"={len(packed) // 4}I", packed)) + f":{port:04X}"
