"""Which addresses a namespace's own provider may have: none that is internal to the nodes or to the cloud.

Else a namespace's user could make the operator speak to what listens on its node, or to the cloud's metadata, which
gives out the node's own credentials. Private networks are free: servers of one's own live there.
"""

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

_REFUSED: Final[tuple[Network, ...]] = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",  # this host
            "127.0.0.0/8",
            "169.254.0.0/16",  # link-local, and the metadata of most clouds
            "100.100.100.200/32",  # metadata: Alibaba
            "168.63.129.16/32",  # Azure's host
            "192.0.0.192/32",  # metadata: Oracle
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
            "::/127",  # unspecified, and loopback
            "fe80::/10",
            "ff00::/8",
            "fd00:ec2::/64",  # metadata, names and time: AWS
            "fd20:ce::254/128",  # metadata: Google
        ),
    )
)
_NAT64: Final = tuple(map(IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48")))
_COMPATIBLE: Final = IPv6Network("::/96")


class AddressRefusedError(Exception):
    """A connection to an address that a namespace may not name. The message says which and what to do."""


def _carried(address: Address) -> Iterable[Address]:
    """The address, and what a gateway on the way may make of it."""
    yield address
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            yield address.ipv4_mapped
        if address.sixtofour:
            yield address.sixtofour
        if address.teredo:
            yield from address.teredo
        # The last 32 bits; for 64:ff9b:1::/48 that is the form of the /96 that a site makes of it.
        if address in _COMPATIBLE or any(address in network for network in _NAT64):
            yield IPv4Address(int(address) & 0xFFFFFFFF)


def _literal(host: str) -> Address | None:
    """The address that `host` writes, in any form that a resolver takes, such as 127.1 or 0x7f000001."""
    try:
        return ip_address(host)
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host.rstrip(".")))
    except (OSError, ValueError):
        return None


class Guard:
    """Refuses the addresses above, but those in `allowed`."""

    def __init__(self, allowed: tuple[Network, ...] = ()) -> None:
        self._allowed = allowed

    def check(self, address: str, host: str) -> None:
        """Raises AddressRefusedError if no connection to `address`, which `host` has, may be made."""
        exact = ip_address(address)
        if self._allows(exact):
            return
        if any(form in network and not self._allows(form) for form in _carried(exact) for network in _REFUSED):
            has = "" if address == host else f", which is {address}"
            raise AddressRefusedError(
                f"A namespace's provider may not be at {host}{has}: that address is internal to the node or the cloud."
                " Give it another, or let the operator's administrator allow this one with --allow-address"
            )

    def _allows(self, address: Address) -> bool:
        return any(address in network for network in self._allowed)

    def check_host(self, host: str) -> None:
        """Raises AddressRefusedError if `host` writes an address that is refused; names are checked as resolved."""
        address = _literal(host)
        if address is not None:
            self.check(str(address), host)

    def socket(self, address_info: tuple[Any, ...]) -> socket.socket:
        """A socket to connect to just this address: aiohttp asks for one for each, and resolves no literals."""
        family, type_, protocol, _, (host, *_) = address_info
        self.check(host, host)
        return socket.socket(family, type_, protocol)


class GuardedResolver(AbstractResolver):
    """Resolves a name once, and refuses it if one of its addresses is refused: which one answers is chance."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._resolver = DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        for each in found:
            self._guard.check(each["host"], host)
        return found

    async def close(self) -> None:
        await self._resolver.close()
