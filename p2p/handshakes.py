"""Who knocked and was not let in: reading libzmq's monitor events of an inbox.

Theory
------
libzmq tells of failed handshakes, but not of everything that fails: bytes that do not even begin like ZMTP
are dropped with a bare "disconnected", as is every honest connection at its end.  An event of success does
not say which descriptor it was about.  So we keep accounts.  A connection that ends is, in this order,

* one that has talked to us: frames carry their descriptor, so we know those;
* one whose failure was told just before;
* one that was let in and never said a word;
* and otherwise one that was never a connection of ours: garbage.

Where several strangers come at once, an end may be booked under another's name, but the sums are right.
"""

from __future__ import annotations

import enum

__all__ = ["DoorEvent", "DoorLedger"]

CRYPTOGRAPHIC = 0x11000001  # ZMQ_PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC: it expects another ring's public key here
MECHANISM_MISMATCH = 0x11000002  # ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH: NULL or PLAIN instead of CURVE


class DoorEvent(enum.Enum):
    """What a monitor tells."""

    SUCCEEDED = enum.auto()
    REFUSED = enum.auto()  # the doorman said no, and has counted it
    PROTOCOL = enum.auto()
    UNFINISHED = enum.auto()
    ENDED = enum.auto()


class DoorLedger:
    """The accounts of one inbox."""

    def __init__(self) -> None:
        self.ended = 0  # connections, of whatever kind
        self._talking: set[int] = set()
        self._failing = 0
        self._silent = 0

    def heard(self, descriptor: int) -> None:
        """A frame came over this descriptor."""
        if descriptor not in self._talking:
            self._talking.add(descriptor)
            self._silent -= 1  # below zero for a moment, where the frame was faster than the event

    def note(self, event: DoorEvent, value: int) -> str | None:
        """Take an event.

        Args:
            event: what happened.
            value: the descriptor of ENDED, the error code of PROTOCOL.

        Returns:
            The kind of refusal to be counted, if this was one.
        """
        match event:
            case DoorEvent.SUCCEEDED:
                self._silent += 1
                return None
            case DoorEvent.ENDED:
                return self._end(value)
            case DoorEvent.REFUSED:
                self._failing += 1
                return None
            case DoorEvent.UNFINISHED:
                self._failing += 1
                return "unfinished"
            case DoorEvent.PROTOCOL:
                self._failing += 1
                if value == CRYPTOGRAPHIC:
                    return "other_ring"
                return "no_key" if value == MECHANISM_MISMATCH else "garbage"

    def _end(self, descriptor: int) -> str | None:
        self.ended += 1
        if descriptor in self._talking:
            self._talking.discard(descriptor)
        elif self._failing > 0:
            self._failing -= 1
        elif self._silent > 0:
            self._silent -= 1
        else:
            return "garbage"
        return None
