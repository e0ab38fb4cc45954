"""Addresses as people write them and as sockets take them.

``host:port``, ``[ipv6]:port``, ``host`` (the default port), ``:port`` (loopback).  Names are resolved once,
when a process starts: libzmq would look them up in its I/O thread, where a slow resolver stops all traffic.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass

from membership.view import Member
from p2p.errors import BadAddress, NameNotResolved

__all__ = [
    "BULK_PORT_META",
    "DEFAULT_PORT",
    "HostPort",
    "bulk_address",
    "outbound_host",
    "parse_address",
    "resolve",
]

DEFAULT_PORT = 7700
BULK_PORT_META = "bulk"  # in a member's meta: the port of its inbox for data, at the same host

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,253}[A-Za-z0-9.])?")


@dataclass(frozen=True, slots=True)
class HostPort:
    """A host, by name or number, and a port; 0 asks the system for a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_numeric(self) -> bool:
        """Whether the host is a number, so that connecting asks no resolver."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it.  A name that is not resolved yet counts as reachable."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def is_wildcard(self) -> bool:
        """Whether it stands for all interfaces, and so is no address that others could connect to."""
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False


def bulk_address(member: Member) -> str:
    """Return the address of a member's inbox for data, "" of one that does not say its port."""
    port = dict(member.meta).get(BULK_PORT_META)
    return f"{member.address.rpartition(':')[0]}:{port}" if port is not None else ""


def parse_address(text: str) -> HostPort:
    """Read an address.

    Raises:
        BadAddress: it is none.
    """
    shape = f"{text!r} is no address: write HOST:PORT, as in 127.0.0.1:{DEFAULT_PORT}"
    host, port_text = text.strip(), ""
    if host.startswith("["):
        host, bracket, rest = host[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise BadAddress(shape)
        port_text = rest[1:]
        if ":" not in host:
            raise BadAddress(shape)
    elif host.count(":") <= 1:
        host, _, port_text = host.partition(":")
    host = host or "127.0.0.1"
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise BadAddress(shape) from None
    elif not _HOST.fullmatch(host):
        raise BadAddress(shape)
    if not port_text:
        return HostPort(host, DEFAULT_PORT)
    if not (port_text.isascii() and port_text.isdigit()) or int(port_text) > 65_535:
        raise BadAddress(f"{text!r}: {port_text!r} is no port, which is a number from 0 to 65535")
    return HostPort(host, int(port_text))


def resolve(address: HostPort) -> HostPort:
    """The same with a number for the host; IPv4 where there is a choice.  Asks the system's resolver, and
    waits.

    Raises:
        NameNotResolved: the resolver does not know the name.
    """
    try:
        ipaddress.ip_address(address.host)
    except ValueError:
        pass
    else:
        return address
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a host name"
        raise NameNotResolved(f"the name {address.host!r} does not resolve: {reason}") from None
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return HostPort(str(found[0][4][0]), address.port)


def outbound_host(towards: HostPort) -> str | None:
    """This machine's own address on the way to another, or None.  Sends nothing."""
    family = socket.AF_INET6 if ":" in towards.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((towards.host, towards.port or DEFAULT_PORT))
        except OSError:
            return None
        return str(probe.getsockname()[0])
