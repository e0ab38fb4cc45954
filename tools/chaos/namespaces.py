"""A network of Linux network namespaces: each peer alone in one, all of them around a router.

    peer 0: 10.213.0.2 ── 10.213.0.1 ┐
    peer 1: 10.213.1.2 ── 10.213.1.1 ┤ router ── 10.213.255.1 ── 10.213.255.2: clients, and this process
    ...                              ┘

``ip rule add from A to B type blackhole`` in the router drops all packets of one direction without a word, in
the midst of connections too, which is what a real cut does.  A link is slowed with ``tc``.

This process moves into the clients' namespace while the network exists, as it asks the peers, too, and moves
back when it is removed.  Nothing outside the namespaces is changed; each bears the process id in its name.

⚙ This module changes the network configuration of namespaces that it has made; it needs root.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from p2p.keys import DEFAULT_CLUSTER, load_or_generate
from p2p.zmq_transport import new_key_pair
from tools.chaos.faults import FaultUnavailable, Place
from tools.chaos.links import Links

__all__ = ["Namespaces", "why_not"]

NETWORK: Final = "10.213"
CLIENTS: Final = 255
MAX_PEERS: Final = 64
PORT: Final = 7700
BURST_BYTES: Final = 32 << 10
CLONE_NEWNET: Final = 0x40000000


def why_not() -> str:
    """Return what this machine lacks for namespaces, "" if nothing; makes and removes one to find out."""
    if not sys.platform.startswith("linux"):
        return "network namespaces exist on Linux only"
    if shutil.which("ip") is None:
        return "the command `ip` is missing"
    if os.geteuid() != 0:
        return "network namespaces take root"
    probe = f"ringreduce-{os.getpid()}-probe"
    try:
        _ip("netns", "add", probe)
        try:
            _ip("-n", probe, "rule", "add", "from", "10.0.0.1", "to", "10.0.0.2", "type", "blackhole")
            _ip("-n", probe, "link", "add", "name", "one", "type", "veth", "peer", "name", "two")
            _forward(probe)
        finally:
            _ip("netns", "del", probe)
    except (FaultUnavailable, OSError) as error:
        return f"network namespaces cannot be used here: {error}"
    return ""


class Namespaces(Links):
    """Peers in namespaces of their own.

    Args:
        directory: the cluster's; its keys are made there, as no peer may make them for other machines.

    Raises:
        FaultUnavailable: this machine does not allow it.
    """

    name = "network namespaces"

    def __init__(self, directory: Path) -> None:
        self._tag = f"ringreduce-{os.getpid()}"
        self._made: list[str] = []
        self._slowed: set[int] = set()
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        _remove_leftovers()
        load_or_generate(directory / "keys", DEFAULT_CLUSTER, new_key_pair)
        try:
            self._make(self._router)
            _forward(self._router)
            self._connect(self._clients, CLIENTS)
            self._enter(f"/run/netns/{self._clients}")
        except BaseException:
            self.close()
            raise

    @property
    def _router(self) -> str:
        return f"{self._tag}-router"

    @property
    def _clients(self) -> str:
        return f"{self._tag}-clients"

    def _peer(self, number: int) -> str:
        return f"{self._tag}-{number}"

    # ---- surroundings ----------------------------------------------------------------------------------

    def place(self, number: int) -> Place:
        """See `Surroundings.place`."""
        assert number < MAX_PEERS
        self._connect(self._peer(number), number)
        return Place(
            listen=f"{_address(number)}:{PORT}",
            prefix=("ip", "netns", "exec", self._peer(number)),
            options=("--profile", "local"),  # as fast as peers of one machine can be
        )

    def client_prefix(self) -> tuple[str, ...]:
        """See `Surroundings.client_prefix`: this process is among the clients, and so are its children."""
        return ()

    def close(self) -> None:
        """See `Surroundings.close`."""
        if self._home >= 0:
            self._enter_descriptor(self._home)
            os.close(self._home)
            self._home = -1
        for name in reversed(self._made):
            with contextlib.suppress(FaultUnavailable):
                _ip("netns", "del", name)
        self._made.clear()

    # ---- hurting ---------------------------------------------------------------------------------------

    def block(self, source: int, target: int) -> None:
        """See `Links.block`."""
        self.unblock(source, target)  # a second rule for the same pair would outlive the first one's removal
        self._rule("add", source, target)

    def unblock(self, source: int, target: int) -> None:
        """See `Links.unblock`."""
        with contextlib.suppress(FaultUnavailable):
            self._rule("del", source, target)

    def slow(self, number: int, bytes_per_s: int) -> None:
        """See `Links.slow`."""
        ends = ((self._router, f"v{number}"), (self._peer(number), "eth0"))
        for namespace, device in ends:
            if number in self._slowed:
                _run("tc", "-n", namespace, "qdisc", "del", "dev", device, "root")
            if bytes_per_s:
                limits = ("rate", f"{8 * bytes_per_s}bit", "burst", str(BURST_BYTES), "latency", "400ms")
                _run("tc", "-n", namespace, "qdisc", "add", "dev", device, "root", "tbf", *limits)
        self._slowed.discard(number)
        if bytes_per_s:
            self._slowed.add(number)

    # ---- inside ----------------------------------------------------------------------------------------

    def _make(self, name: str) -> None:
        _ip("netns", "add", name)
        self._made.append(name)
        _ip("-n", name, "link", "set", "lo", "up")

    def _connect(self, name: str, number: int) -> None:
        """Make a namespace and a link from the router to it."""
        self._make(name)
        router, device, near = self._router, f"v{number}", f"{NETWORK}.{number}.1"
        _ip(
            "-n", router, "link", "add", "name", device, "type", "veth", "peer", "name", "eth0", "netns", name
        )
        _ip("-n", router, "address", "add", f"{near}/24", "dev", device)
        _ip("-n", router, "link", "set", device, "up")
        _ip("-n", name, "address", "add", f"{_address(number)}/24", "dev", "eth0")
        _ip("-n", name, "link", "set", "eth0", "up")
        _ip("-n", name, "route", "add", "default", "via", near)

    def _rule(self, verb: str, source: int, target: int) -> None:
        pair = ("from", _address(source), "to", _address(target))
        _ip("-n", self._router, "rule", verb, *pair, "type", "blackhole")

    def _enter(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            self._enter_descriptor(descriptor)
        finally:
            os.close(descriptor)

    def _enter_descriptor(self, descriptor: int) -> None:
        """Move this thread, and so all that it starts, into a network namespace."""
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise FaultUnavailable(f"cannot enter a network namespace: {os.strerror(number)}")


def _remove_leftovers() -> None:
    """Remove the namespaces of processes like this one that were killed."""
    made = sorted(path.name for path in Path("/run/netns").glob("ringreduce-*-*"))
    for name in made:
        process = name.split("-")[1]
        if process.isdigit() and not Path("/proc", process).exists():
            with contextlib.suppress(FaultUnavailable):
                _ip("netns", "del", name)


def _address(number: int) -> str:
    return f"{NETWORK}.{number}.2"


def _forward(namespace: str) -> None:
    """Let a namespace pass packets on."""
    _ip("netns", "exec", namespace, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")


def _ip(*words: str) -> None:
    _run("ip", *words)


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FaultUnavailable(f"`{' '.join(words)}`: {done.stderr.strip() or done.returncode}")
