"""Messages to peers that are not reached: one hop over a peer that reaches both.

Theory
------
Membership knows who is reached only through another (`membership.detours`), and this is where all that the
peer says takes that way.  The peers at both ends notice nothing: the frame that arrives is the one that was
sent, from its sender; only the connection is the relay's.  Both are peers of the ring, so the role that the
connection proves is the right one.

*Control frames* travel inside a `Forward`.  One that would become too large for a frame goes the direct way,
where it is lost as it would be without this.

*Bulk messages* travel with one part more, the receiver's id, in front.  A relay holds those that the link
takes no more of, `HELD_BYTES` for all links together, no more than `LINK_HELD_BYTES` for one, so that a link
which takes nothing leaves room for others, and no longer than `HELD_S`; what does not fit is dropped, and its
sender sends it again as it does with all that is lost.

A relay passes on over its own links alone, so nothing travels in circles and everything has one hop.
Membership's own messages never take a detour: they are what finds out whether one is needed.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from membership.swim import Swim
from membership.view import NodeId
from p2p.addresses import bulk_address
from p2p.member_bounds import ID
from p2p.roles import Role
from p2p.schema import Bounds
from p2p.transport import MAX_BULK_BYTES, BulkArrival, Transport
from p2p.wire import MAX_CONTROL_BYTES, Kind

__all__ = ["FORWARD_KIND", "FORWARD_ROOM", "Forward", "Forwarding", "send_chunk"]

HELD_BYTES: Final = 16 << 20
LINK_HELD_BYTES: Final = HELD_BYTES // 4  # any one message fits
HELD_S: Final = 10.0
HELD_PAUSE_S: Final = 0.02
# What a bulk message has, without the receiver's id.
CHUNK_PARTS: Final = 3
# The most that an envelope adds to the frame inside.
FORWARD_ROOM: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """Please pass this frame on to a peer that its sender does not reach.

    Attributes:
        to: for whom it is.
        frame: as that peer is to receive it.
    """

    to: NodeId
    frame: bytes


FORWARD_KIND = Kind(
    tag=9,
    message=Forward,
    role=Role.PEER,
    bounds={"Forward.to": ID, "Forward.frame": Bounds(bytes_len=MAX_CONTROL_BYTES)},
)


def send_chunk(swim: Swim, transport: Transport, to: NodeId, parts: Sequence[bytes]) -> bool:
    """Send a bulk message to a peer, over its detour if there is one.

    Returns:
        False if the link takes no more now, or the member says no address: the transfer waits, and ends when
        the member is known to be gone.

    Raises:
        OversizedFrame: nobody would accept it.
    """
    relay = swim.detour(to)
    if relay is not None and (address := bulk_address(relay)):
        return transport.send_bulk(address, (to.encode(), *parts))
    member = swim.get(to)
    address = bulk_address(member) if member is not None else ""
    return bool(address) and transport.send_bulk(address, parts)


@dataclass(frozen=True, slots=True)
class _Held:
    """A bulk message that waits for its link."""

    parts: tuple[memoryview, ...]
    size_bytes: int
    until: float


class Forwarding:
    """What a peer does for others that do not reach each other.

    Args:
        swim: our membership, which is only read.
        transport: ours.
        counters: `frames_forwarded` and `bulk_forwarded` are counted here, `bulk_not_forwarded` too.
    """

    def __init__(self, swim: Swim, transport: Transport, counters: Counter[str]) -> None:
        self._swim = swim
        self._transport = transport
        self._counters = counters
        self._held: dict[NodeId, deque[_Held]] = {}
        self._held_bytes: Counter[NodeId] = Counter()

    def pass_on(self, message: Forward) -> None:
        """Send a control frame to whom it is for, if that one is here."""
        member = self._swim.get(message.to)
        if member is not None and member.status.in_ring:
            self._counters["frames_forwarded"] += 1
            self._transport.send(member.address, message.frame)

    def take_bulk(self, arrival: BulkArrival, now: float) -> bool:
        """Take a bulk message that is for another peer; False if it is for this one."""
        if len(arrival.parts) != CHUNK_PARTS + 1:
            return False
        try:
            to = NodeId(bytes(arrival.parts[0]).decode())
        except UnicodeDecodeError:
            return True  # for nobody
        parts = arrival.parts[1:]
        size_bytes = sum(len(part) for part in parts)
        # A link refuses what is too large, though its parts may come in one by one.
        if (
            size_bytes > MAX_BULK_BYTES
            or self._held_bytes.total() + size_bytes > HELD_BYTES
            or self._held_bytes[to] + size_bytes > LINK_HELD_BYTES
        ):
            self._counters["bulk_not_forwarded"] += 1
            return True
        self._held.setdefault(to, deque()).append(_Held(parts, size_bytes, now + HELD_S))
        self._held_bytes[to] += size_bytes
        return True

    def flush(self, now: float) -> None:
        """Send what the links take, and drop what has waited too long, or for a peer that is gone."""
        for to, waiting in list(self._held.items()):
            member = self._swim.get(to)
            address = bulk_address(member) if member is not None and member.status.in_ring else ""
            while waiting:
                held = waiting[0]
                is_late = not address or held.until <= now
                if not is_late and not self._transport.send_bulk(address, held.parts):
                    break  # the link takes no more
                waiting.popleft()
                self._held_bytes[to] -= held.size_bytes
                self._counters["bulk_not_forwarded" if is_late else "bulk_forwarded"] += 1
            if not waiting:
                del self._held[to], self._held_bytes[to]

    def next_deadline(self, now: float) -> float:
        """When to be flushed again."""
        return now + HELD_PAUSE_S if self._held else float("inf")
