"""A transport that can be cut off: what a failpoint with the action ``cut`` needs, and nothing else uses it.

While the cut lasts, nothing that is sent leaves and nothing that arrives is seen; both sides find out as they
would with a pulled cable, by silence.  What arrives is taken from the sockets and thrown away, since a real
network would not keep it either.  A bulk message counts as sent: a full link would only be tried again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mapreduce.failpoints import is_armed, is_cut
from p2p.transport import Arrival, BulkArrival, Connection, Notice, Transport

__all__ = ["CutTransport", "cuttable"]


def cuttable(transport: Transport) -> Transport:
    """Return the transport itself, and where a test may arm failpoints one that can be cut off."""
    return CutTransport(transport) if is_armed() else transport


class CutTransport:
    """A `p2p.transport.Transport` around another one.

    Args:
        inner: the real one; the caller closes it.
    """

    def __init__(self, inner: Transport) -> None:
        self._inner = inner

    @property
    def address(self) -> str:
        """See `Transport.address`."""
        return self._inner.address

    @property
    def bulk_address(self) -> str:
        """See `Transport.bulk_address`."""
        return self._inner.bulk_address

    def send(self, to: str, frame: bytes) -> bool:
        """See `Transport.send`."""
        return is_cut() or self._inner.send(to, frame)

    def reply(self, connection: Connection, frame: bytes) -> bool:
        """See `Transport.reply`."""
        return is_cut() or self._inner.reply(connection, frame)

    def send_bulk(self, to: str, parts: Sequence[bytes | memoryview]) -> bool:
        """See `Transport.send_bulk`."""
        return is_cut() or self._inner.send_bulk(to, parts)

    def receive(self, most: int) -> list[Arrival]:
        """See `Transport.receive`."""
        arrivals = self._inner.receive(most)
        return [] if is_cut() else arrivals

    def receive_bulk(self, most: int) -> list[BulkArrival]:
        """See `Transport.receive_bulk`."""
        arrivals = self._inner.receive_bulk(most)
        return [] if is_cut() else arrivals

    def take_notices(self) -> list[Notice]:
        """See `Transport.take_notices`."""
        return self._inner.take_notices()

    def wait(self, timeout_s: float) -> None:
        """See `Transport.wait`."""
        self._inner.wait(timeout_s)

    def watch(self, descriptor: int) -> None:
        """See `Transport.watch`."""
        self._inner.watch(descriptor)

    def maintain(self, now: float) -> None:
        """See `Transport.maintain`."""
        self._inner.maintain(now)

    def forget(self, address: str) -> None:
        """See `Transport.forget`."""
        self._inner.forget(address)

    def counters(self) -> Mapping[str, int]:
        """See `Transport.counters`."""
        return self._inner.counters()

    def close(self) -> None:
        """See `Transport.close`."""
        self._inner.close()
