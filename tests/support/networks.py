"""Hosts on this machine: network namespaces with addresses of their own, on one bridge, that can be cut off."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import pytest

PREFIX = "sluice-t"
BRIDGE = "sluice-t0"
SUBNET = "10.213.77"
OUTSIDE = f"{SUBNET}.1"
"""The address of this machine itself, as the hosts see it."""
_NOT_HERE = ("not permitted", "denied", "not supported", "Unknown device type")
FIRST = 11
"""Number of the first host, and the end of its address."""


class Host:
    """A host with an address; processes are started in it with the command's prefix `inside`."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.address = f"{SUBNET}.{number}"
        self._namespace = f"{PREFIX}-{name}"
        self._cable = f"{PREFIX}{number}"
        self.inside = ("ip", "netns", "exec", self._namespace)
        _ip("netns", "add", self._namespace)
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", self._namespace)
        _ip("link", "set", self._cable, "master", BRIDGE, "up")
        _ip("-n", self._namespace, "link", "set", "lo", "up")
        _ip("-n", self._namespace, "addr", "add", f"{self.address}/24", "dev", "eth0")
        _ip("-n", self._namespace, "link", "set", "eth0", "up")

    def cut(self) -> None:
        """Nothing comes in or goes out; connections stay open and silent."""
        _ip("link", "set", self._cable, "down")

    def mend(self) -> None:
        _ip("link", "set", self._cable, "up")

    def send_nothing_to(self, address: str) -> None:
        """A link that works in one direction: what ``address`` sends arrives, and nothing goes back."""
        _ip("-n", self._namespace, "route", "add", "blackhole", f"{address}/32")

    def send_again_to(self, address: str) -> None:
        _ip("-n", self._namespace, "route", "del", "blackhole", f"{address}/32")

    def lose(self, percent: int) -> None:
        """Lose so many of a hundred packets, at random, in each direction."""
        hooks = "".join(
            f"chain {hook} {{ type filter hook {hook} priority 0; numgen random mod 100 < {percent} drop; }}\n"
            for hook in ("input", "output")
        )
        self._nft(f"table ip sluice-loss {{\n{hooks}}}\n")

    def lose_nothing(self) -> None:
        self._nft("delete table ip sluice-loss\n")

    def reach_through(self, relays: Mapping[str, tuple[str, int]]) -> None:
        """Connections to each address, ``IP:PORT``, go to its relay from now on, whatever they are made for."""
        rules = "".join(
            f"ip daddr {ip} tcp dport {port} dnat to {relay[0]}:{relay[1]}\n"
            for address, relay in relays.items()
            for ip, _, port in [address.partition(":")]
        )
        self._nft(f"table ip sluice-relays {{\nchain output {{\ntype nat hook output priority -100\n{rules}}}\n}}\n")

    def _nft(self, rules: str) -> None:
        subprocess.run(
            [*self.inside, "nft", "-f", "-"], input=rules.encode(), check=True, capture_output=True, timeout=30
        )

    def remove(self) -> None:
        """The cable first: with its namespace it would go some time later, and be in the way of the next one."""
        _forget("link", "del", self._cable)
        _forget("netns", "del", self._namespace)


@contextmanager
def hosts(names: Sequence[str]) -> Iterator[dict[str, Host]]:
    """Hosts that reach each other and this machine; the test is skipped where that is not allowed."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if shutil.which("nft") is None:
        pytest.skip("nft is not installed: it loses packets and puts relays between hosts")
    made: dict[str, Host] = {}
    for number, name in enumerate(names, FIRST):  # what a run has left that was killed
        _forget("link", "del", f"{PREFIX}{number}")
        _forget("netns", "del", f"{PREFIX}-{name}")
    _forget("link", "del", BRIDGE)
    try:
        try:
            _ip("link", "add", BRIDGE, "type", "bridge")
            _ip("addr", "add", f"{OUTSIDE}/24", "dev", BRIDGE)
            _ip("link", "set", BRIDGE, "up")
            for number, name in enumerate(names, FIRST):
                made[name] = Host(name, number)
        except FileNotFoundError:
            pytest.skip("ip (iproute2) is not installed: it makes network namespaces")
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip()
            if not any(reason in said for reason in _NOT_HERE):
                raise AssertionError(said) from error  # hosts that were not made say nothing about Sluice
            pytest.skip(f"no network namespaces here: {said}")
        yield made
    finally:
        for host in made.values():
            host.remove()
        _forget("link", "del", BRIDGE)


def _forget(*arguments: str) -> None:
    with suppress(OSError, subprocess.CalledProcessError):
        _ip(*arguments)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=30)
