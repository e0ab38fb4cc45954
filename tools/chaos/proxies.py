"""A network of TCP proxies on loopback, for everybody: one in front of each inbox of each peer.

    peer A ──► 127.0.0.2:P ──► 127.0.0.1:P (peer B's inbox)

A peer serves on 127.0.0.1 and advertises 127.0.0.2, where a proxy listens on the same ports; so all that
peers say to each other passes through us.  CURVE hides what it is, not whose it is: a connection's other end
is looked up in ``/proc/net/tcp``, its socket among the descriptors of the peers' processes, and so each
connection belongs to an ordered pair of peers, and each of its directions to one of them.  What belongs to no
peer, a client's, passes untouched.

A direction that is *blocked* is not read any more: bytes wait, as they do with TCP when packets are lost, and
go on when it is over, unless one of the ends has given up.  A *delayed* one holds each piece back, a *slow*
one paces them.  Pieces go one after the other, so a delay also bounds how much is on its way.

⚙ This module listens on sockets, in a thread of its own, and reads /proc.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tools.chaos.faults import Place
from tools.chaos.links import Links

if TYPE_CHECKING:
    from tools.chaos.cluster import Cluster

__all__ = ["Proxies", "why_not"]

INSIDE: Final = "127.0.0.1"
OUTSIDE: Final = "127.0.0.2"
PIECE_BYTES: Final = 64 << 10
LOOK_S: Final = 0.05  # how soon a blocked direction notices that it is open again
NOBODY: Final = -1
END_LIMIT_S: Final = 5.0
_ABORT: Final = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset


def why_not() -> str:
    """Return what this machine lacks for proxies, "" if nothing."""
    if not sys.platform.startswith("linux"):
        return "proxies need Linux: 127.0.0.2 beside 127.0.0.1, and /proc to tell whose a connection is"
    return ""


@dataclass(slots=True)
class _Flow:
    """What is done to all that goes from one peer to another."""

    blocked: bool = False
    delay_s: float = 0.0
    bytes_per_s: int = 0


@dataclass(slots=True, eq=False)
class _Connection:
    """One connection through a proxy; `port` is its client end's."""

    port: int
    target: int
    source: int = NOBODY
    is_known: bool = False
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class Proxies(Links):
    """Peers behind proxies."""

    name = "proxies"

    def __init__(self) -> None:
        self._flows: dict[tuple[int, int], _Flow] = {}
        self._servers: list[asyncio.Server] = []
        self._connections: set[_Connection] = set()
        self._cluster: Cluster | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._thread.start()

    # ---- surroundings ----------------------------------------------------------------------------------

    def place(self, number: int) -> Place:
        """See `Surroundings.place`."""
        control, bulk = _free_ports()
        for port in (control, bulk):
            self._call(self._serve(number, port))
        return Place(
            listen=f"{INSIDE}:{control}",
            advertise=f"{OUTSIDE}:{control}",
            options=("--bulk-port", str(bulk), "--profile", "local"),
        )

    def client_prefix(self) -> tuple[str, ...]:
        """See `Surroundings.client_prefix`."""
        return ()

    def close(self) -> None:
        """See `Surroundings.close`."""
        if self._loop.is_closed():
            return
        self._call(self._end_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def meet(self, cluster: Cluster) -> None:
        """See `Links.meet`: whose a connection is, the cluster's process ids tell."""
        self._cluster = cluster

    # ---- hurting ---------------------------------------------------------------------------------------

    def block(self, source: int, target: int) -> None:
        """See `Links.block`."""
        self._change(source, target, lambda flow: setattr(flow, "blocked", True))

    def unblock(self, source: int, target: int) -> None:
        """See `Links.unblock`."""
        self._change(source, target, lambda flow: setattr(flow, "blocked", False))

    def slow(self, number: int, bytes_per_s: int) -> None:
        """See `Links.slow`; so much to, and from, each other peer."""
        for pair in self._pairs_of(number):
            self._change(*pair, lambda flow: setattr(flow, "bytes_per_s", bytes_per_s))

    def delay(self, number: int, seconds: float) -> None:
        """See `Links.delay`."""
        for pair in self._pairs_of(number):
            self._change(*pair, lambda flow: setattr(flow, "delay_s", seconds))

    def reset(self, number: int) -> None:
        """See `Links.reset`."""

        async def reset() -> None:
            self._tell_apart()
            for connection in list(self._connections):
                if connection.source != NOBODY and number in (connection.source, connection.target):
                    _abort(connection)

        self._call(reset())

    # ---- inside: the thread of the caller --------------------------------------------------------------

    def _pairs_of(self, number: int) -> list[tuple[int, int]]:
        assert self._cluster is not None, "links are hurt after they have met their cluster"
        others = [peer.number for peer in self._cluster.peers if peer.number != number]
        return [pair for other in others for pair in ((number, other), (other, number))]

    def _change(self, source: int, target: int, change: Callable[[_Flow], None]) -> None:
        async def do() -> None:
            self._tell_apart()
            change(self._flows.setdefault((source, target), _Flow()))

        self._call(do())

    def _call(self, work: object) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10.0)  # type: ignore[arg-type]

    # ---- inside: the loop's thread ---------------------------------------------------------------------

    async def _serve(self, target: int, port: int) -> None:
        async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._connect(target, port, reader, writer)

        self._servers.append(await asyncio.start_server(meet, OUTSIDE, port, limit=PIECE_BYTES))

    async def _connect(
        self, target: int, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        connection = _Connection(writer.get_extra_info("peername")[1], target, writers=[writer])
        try:
            there, back = await asyncio.open_connection(INSIDE, port, limit=PIECE_BYTES)
        except OSError:  # nobody serves there now
            _abort(connection)
            return
        connection.writers.append(back)
        self._connections.add(connection)
        self._tell_apart()
        connection.tasks = [
            asyncio.ensure_future(self._pass_on(connection, reader, back, forward=True)),
            asyncio.ensure_future(self._pass_on(connection, there, writer, forward=False)),
        ]
        await asyncio.wait(connection.tasks, return_when=asyncio.FIRST_COMPLETED)
        _abort(connection)
        for task in connection.tasks:
            task.cancel()
        self._connections.discard(connection)

    async def _pass_on(
        self,
        connection: _Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        forward: bool,
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(PIECE_BYTES):
                flow = self._flow(connection, forward=forward)
                if flow.delay_s:
                    await asyncio.sleep(flow.delay_s)
                if flow.bytes_per_s:
                    await asyncio.sleep(len(piece) / flow.bytes_per_s)
                while self._flow(connection, forward=forward).blocked:
                    await asyncio.sleep(LOOK_S)
                writer.write(piece)
                await writer.drain()

    def _flow(self, connection: _Connection, *, forward: bool) -> _Flow:
        ends = (connection.source, connection.target)
        return self._flows.get(ends if forward else ends[::-1]) or _Flow()

    def _tell_apart(self) -> None:
        """Find out whose the connections are of which that is not known."""
        unknown = [connection for connection in self._connections if not connection.is_known]
        if not unknown or self._cluster is None:
            return
        owners = _sockets_of(self._cluster)
        inodes = _inodes_by_port()
        for connection in unknown:
            connection.source = owners.get(inodes.get(connection.port, 0), NOBODY)
            connection.is_known = True

    async def _end_all(self) -> None:
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            for task in connection.tasks:
                task.cancel()
        others = asyncio.all_tasks(self._loop) - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=END_LIMIT_S)


def _abort(connection: _Connection) -> None:
    for writer in connection.writers:
        end = writer.get_extra_info("socket")
        if end is not None and not writer.transport.is_closing():
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        writer.transport.abort()


def _free_ports() -> tuple[int, int]:
    """Two ports that nobody uses on either address just now, below those the kernel hands out by itself."""
    found: list[int] = []
    for port in range(20_000 + os.getpid() % 5_000, 32_000):
        with socket.socket() as inside, socket.socket() as outside:
            try:
                inside.bind((INSIDE, port))
                outside.bind((OUTSIDE, port))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            found.append(port)
        if len(found) == 2:
            return found[0], found[1]
    raise OSError("no free ports")


_given: set[int] = set()


def _inodes_by_port() -> dict[int, int]:
    """{local port: inode} of all connections to a proxy that begin on this machine."""
    outside = socket.inet_aton(OUTSIDE)[::-1].hex().upper()
    found: dict[int, int] = {}
    with open("/proc/net/tcp", encoding="ascii") as table:
        for line in table:
            words = line.split()
            if len(words) > 9 and words[2].startswith(outside):
                found[int(words[1].partition(":")[2], 16)] = int(words[9])
    return found


def _sockets_of(cluster: Cluster) -> dict[int, int]:
    """{inode of a socket: number of the peer that has it open}."""
    found: dict[int, int] = {}
    for peer in cluster.peers:
        with contextlib.suppress(OSError, ProcessLookupError):
            directory = f"/proc/{peer.pid}/fd"
            for name in os.listdir(directory):
                with contextlib.suppress(OSError):
                    kind, _, inode = os.readlink(f"{directory}/{name}").partition(":")
                    if kind == "socket":
                        found[int(inode.strip("[]"))] = peer.number
    return found
