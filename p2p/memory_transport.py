"""The transport within one process: the same promises as over TCP, without sockets, threads or time.

A `MemoryNetwork` knows its ends by address.  Sending puts a frame into the receiver's inbox at once, in
order, so what happens depends on the order of calls alone.  It checks what the real one checks: sizes, full
queues, and keys, where a stranger's frame is dropped and counted as the doorman would.  Only bytes pass, so
every message is encoded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import count

from p2p.errors import AddressInUse, KeysUnusable, OversizedFrame
from p2p.keys import KeySet
from p2p.roles import Role
from p2p.transport import (
    Arrival,
    BulkArrival,
    Connection,
    LinkFailed,
    Notice,
    StrangerRefused,
    check_bulk,
)
from p2p.wire import MAX_CONTROL_BYTES

__all__ = ["MemoryNetwork", "MemoryTransport"]

QUEUE_LIMIT = 512  # control frames in an inbox
BULK_QUEUE_LIMIT = 8
MAX_NOTICES = 4_096


class MemoryNetwork:
    """All ends that can reach each other."""

    def __init__(self) -> None:
        self._ends: dict[str, MemoryTransport] = {}
        self._cuts: set[tuple[str, str]] = set()
        self._ports = count(1)

    def open(self, keys: KeySet, *, listen: bool = True, address: str = "") -> MemoryTransport:
        """A new end; without `listen` it has no inbox, as a client's.

        Raises:
            AddressInUse: another end has this address.
            KeysUnusable: the keys do not allow to serve.
        """
        if listen and not keys.may_serve:
            raise KeysUnusable(
                f"these keys are for {keys.strongest_role.label} only: a peer needs a peer's token"
            )
        address = (address or f"memory:{next(self._ports)}") if listen else ""
        if address in self._ends:
            raise AddressInUse(f"{address} is in use by another end")
        end = MemoryTransport(self, keys, address)
        if listen:
            self._ends[address] = end
        return end

    def end_at(self, address: str) -> MemoryTransport | None:
        """The open end that listens at an address."""
        return self._ends.get(address)

    def cut(self, source: str, target: str) -> None:
        """Swallow all that is sent from one address to another, until `mend`."""
        self._cuts.add((source, target))

    def mend(self) -> None:
        """Undo all cuts."""
        self._cuts.clear()

    def swallows(self, source: str, target: str) -> bool:
        """Whether this link is cut."""
        return (source, target) in self._cuts

    def remove(self, address: str) -> None:
        """Take an end off the network."""
        self._ends.pop(address, None)


class _MemoryConnection(Connection):
    __slots__ = ("end",)

    def __init__(self, end: MemoryTransport) -> None:
        self.end = end


class MemoryTransport:
    """A `p2p.transport.Transport` in memory; made by `MemoryNetwork.open`."""

    def __init__(self, network: MemoryNetwork, keys: KeySet, address: str) -> None:
        self.address = address
        self.bulk_address = address
        self._network = network
        self._keys = keys
        self._public = keys.roles[keys.strongest_role].public
        self._inbox: deque[Arrival] = deque()
        self._bulk_inbox: deque[BulkArrival] = deque()
        self._notices: deque[Notice] = deque(maxlen=MAX_NOTICES)
        self._dropped = 0
        self._open = True

    def send(self, to: str, frame: bytes) -> bool:
        """See `Transport.send`."""
        _check_size(len(frame), MAX_CONTROL_BYTES)
        end, role = self._knock(to)
        if end is None or role is None:
            return self._drop()
        return end._deliver(Arrival(frame, role, _MemoryConnection(self), self.address)) or self._drop()

    def reply(self, connection: Connection, frame: bytes) -> bool:
        """See `Transport.reply`."""
        _check_size(len(frame), MAX_CONTROL_BYTES)
        assert isinstance(connection, _MemoryConnection)
        return connection.end._deliver(Arrival(frame, Role.PEER, None, self.address)) or self._drop()

    def send_bulk(self, to: str, parts: Sequence[bytes | memoryview]) -> bool:
        """See `Transport.send_bulk`."""
        check_bulk(parts)
        end, role = self._knock(to)
        if end is None or role is None or len(end._bulk_inbox) >= BULK_QUEUE_LIMIT:
            return False
        copies = tuple(memoryview(bytes(part)) for part in parts)
        end._bulk_inbox.append(BulkArrival(copies, role, self.address))
        return True

    def receive(self, most: int) -> list[Arrival]:
        """See `Transport.receive`."""
        return [self._inbox.popleft() for _ in range(min(most, len(self._inbox)))]

    def receive_bulk(self, most: int) -> list[BulkArrival]:
        """See `Transport.receive_bulk`."""
        return [self._bulk_inbox.popleft() for _ in range(min(most, len(self._bulk_inbox)))]

    def take_notices(self) -> list[Notice]:
        """See `Transport.take_notices`."""
        notices = list(self._notices)
        self._notices.clear()
        return notices

    def wait(self, timeout_s: float) -> None:
        """Return at once: what could arrive has arrived."""

    def watch(self, descriptor: int) -> None:
        """Do nothing: there is no waiting that could be cut short."""

    def maintain(self, now: float) -> None:
        """Do nothing: there are no links."""

    def forget(self, address: str) -> None:
        """Do nothing: there are no links."""

    def counters(self) -> Mapping[str, int]:
        """See `Transport.counters`."""
        return {"frames_dropped": self._dropped, "links": 0}

    def close(self) -> None:
        """See `Transport.close`."""
        self._open = False
        self._network.remove(self.address)
        self._inbox.clear()
        self._bulk_inbox.clear()

    def _knock(self, address: str) -> tuple[MemoryTransport | None, Role | None]:
        """Who listens there, and the role in which it takes us in; neither, where nothing arrives."""
        if self._network.swallows(self.address, address):
            return None, None
        end = self._network.end_at(address)
        if end is None:
            self._notices.append(LinkFailed(address, "nobody answers there"))
            return None, None
        kind, reason = "", ""
        role = next((r for r, pair in end._keys.roles.items() if pair.public == self._public), None)
        if end._keys.ring.public != self._keys.ring.public:
            kind = "other_ring"
            reason = "it hung up during the handshake; perhaps it belongs to another cluster"
        elif role is None:
            kind, reason = "bad_key", "it does not know our key"
        if not kind:
            return end, role
        end._notices.append(StrangerRefused(kind, self.address))
        self._notices.append(LinkFailed(address, reason))
        return end, None

    def _deliver(self, arrival: Arrival) -> bool:
        if not self._open or len(self._inbox) >= QUEUE_LIMIT:
            return False
        self._inbox.append(arrival)
        return True

    def _drop(self) -> bool:
        self._dropped += 1
        return False


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise OversizedFrame(size, limit)
