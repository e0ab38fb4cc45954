"""Addresses as people write them."""

from __future__ import annotations

import pytest

from p2p.addresses import DEFAULT_PORT, HostPort, parse_address, resolve
from p2p.errors import BadAddress, NameNotResolved


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:7701", "127.0.0.1", 7701),
        ("localhost", "localhost", DEFAULT_PORT),
        (":7701", "127.0.0.1", 7701),
        ("[::1]:7701", "::1", 7701),
        ("[::1]", "::1", DEFAULT_PORT),
        ("::1", "::1", DEFAULT_PORT),
        (" node-3.example.org:0 ", "node-3.example.org", 0),
    ],
)
def test_what_people_write_is_understood(text: str, host: str, port: int) -> None:
    assert parse_address(text) == HostPort(host, port)


@pytest.mark.parametrize(
    "text",
    ["a b:1", "host:port", "host:65536", "host:-1", "[::1:1", "[host]:1", "tcp://h:1", "h:１", "1::2::3"],
)
def test_what_is_no_address_is_named(text: str) -> None:
    with pytest.raises(BadAddress, match="is no"):
        parse_address(text)


@pytest.mark.parametrize("text", ["127.0.0.1:1", "[::1]:1"])
def test_an_address_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_address(text)) == text


def test_a_number_needs_no_resolver_and_a_name_that_does_not_resolve_is_named() -> None:
    assert resolve(HostPort("10.1.2.3", 5)) == HostPort("10.1.2.3", 5)
    with pytest.raises(NameNotResolved, match=r"'no-such-host\.invalid' does not resolve"):
        resolve(HostPort("no-such-host.invalid", 5))


@pytest.mark.parametrize(
    ("host", "loopback", "wildcard"),
    [
        ("127.0.0.1", True, False),
        ("127.9.9.9", True, False),
        ("::1", True, False),
        ("localhost", True, False),
        ("0.0.0.0", False, True),
        ("::", False, True),
        ("10.0.0.1", False, False),
        ("node", False, False),
    ],
)
def test_loopback_and_wildcard_are_told_apart(host: str, loopback: bool, wildcard: bool) -> None:
    assert HostPort(host, 1).is_loopback is loopback
    assert HostPort(host, 1).is_wildcard is wildcard
