"""Transfers: how segments go from one peer's disk to another's.

Theory
------
A transfer brings one segment (see `p2p.segments`): a header, then its body in chunks over the bulk link.

    sender                                   receiver
    -------------------------------------------------------------------------------------
    chunk 0 (with the header)      ->        opens a file under a temporary name
    chunks, while the window is open ->      writes them, in order
                                   <-        Received: so many bytes of the body are here
    waits when `WINDOW_BYTES` are out
                                   <-        Stored: checked, renamed, in the index (or why not)

*Any message may be lost.*  The receiver takes only the chunk that it waits for, and says with every chunk
how far it is; a sender that hears nothing for `RESEND_AFTER_S` begins again from what was last said.  A
receiver that does not know the transfer any more (it was restarted) says 0 and the sender begins anew.  A
transfer that makes no progress for `GIVE_UP_AFTER_S` has failed, and so has one to a peer that is dead;
to try again is the caller's.  `Stored` is said again when a late chunk of a finished transfer comes.

*Memory is bounded.*  The sender reads a chunk when it may send it; what is on its way to one peer is at most
`WINDOW_BYTES`, and to all peers together at most `ALL_WINDOWS_BYTES`.  The receiver holds one chunk.

*The loop goes on.*  Before a transfer begins its bytes are read once, for the digest in the header; what
stays with this peer is copied.  Both go in steps, so much in each turn of the loop, several in turn.

*Fairness.*  Transfers to one peer go out in turn, a chunk each, so a large one does not keep a small one
waiting.  Repairs share one throttle and go last.

Time comes in as `now`; this module reads and writes files through the store, and sends by effects.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Final

import msgpack

from mapreduce.failpoints import failpoint
from membership.view import NodeId
from p2p.incoming import Incoming
from p2p.segments import Covers, DamagedSegment, Source, parse_header, read_sources
from p2p.store import Store, StoreFull
from p2p.transport import MAX_BULK_BYTES

__all__ = ["Bulk", "BulkEvent", "Received", "SendFailed", "Sent", "Stored"]

CHUNK_BYTES: Final = 1 << 20
WINDOW_BYTES: Final = 4 << 20
ALL_WINDOWS_BYTES: Final = 64 << 20
RESEND_AFTER_S: Final = 2.0
GIVE_UP_AFTER_S: Final = 20.0
# Longer than a sender goes on trying, so nothing that may still come is thrown away.
ABANDON_AFTER_S: Final = 60.0
MAX_INCOMING: Final = 4096
MAX_REMEMBERED: Final = 8192
REPAIR_BYTES_PER_S: Final = 64 << 20
# Read and digested, or copied, in one turn of the loop: a few milliseconds.
STEP_BYTES: Final = 4 << 20
STEP_PAUSE_S: Final = 0.001
# In a message, beside the header of a segment and a chunk: the names and numbers of the transfer.
HEAD_ROOM_BYTES: Final = 1 << 10
MAX_SENT_HEADER_BYTES: Final = MAX_BULK_BYTES - CHUNK_BYTES - HEAD_ROOM_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """So much of the body of your transfer is here."""

    session: int
    transfer: int
    bytes_here: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Your transfer is stored (`reason` empty), or will not be."""

    session: int
    transfer: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A transfer has arrived and was checked there."""

    tag: object
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SendFailed:
    """A transfer did not arrive, and why."""

    tag: object
    reason: str


BulkEvent = Sent | SendFailed
# (node, message): control messages to be sent.
Outgoing = tuple[NodeId, Received | Stored]


@dataclass(slots=True, kw_only=True)
class _Transfer:
    number: int
    to: NodeId
    tag: object
    header: bytes
    size: int
    sources: Sequence[Source]
    is_repair: bool
    chunks: Iterator[bytes]
    # A chunk that the link did not take, with its offset.
    held: tuple[int, bytes] | None = None
    sent: int = 0
    acked: int = 0
    all_sent: bool = False
    heard_at: float = 0.0
    moved_at: float = 0.0


@dataclass(slots=True, kw_only=True)
class _Preparing:
    """What cannot begin yet; `steps` ends with the header and the size, or with None: it was copied here."""

    to: NodeId
    tag: object
    sources: Sequence[Source]
    is_repair: bool
    steps: Generator[int, None, tuple[bytes, int] | None]


@dataclass(slots=True)
class _Lane:
    """The transfers to one peer, in turn."""

    turns: deque[int] = field(default_factory=deque)
    out_bytes: int = 0


class Bulk:
    """Both ends of this peer's transfers.

    Args:
        me: this peer.
        session: of this process: transfers of another life are not taken for ours.
        store: where arriving segments go.
        send_chunk: sends parts to a peer's bulk inbox; False if the link takes no more now.
        refuse: says why an output of a stage of a job is not wanted from a peer, or "".
    """

    def __init__(
        self,
        *,
        me: NodeId,
        session: int,
        store: Store,
        send_chunk: Callable[[NodeId, Sequence[bytes]], bool],
        refuse: Callable[[str, int, NodeId], str] = lambda _job, _stage, _sender: "",
    ) -> None:
        self._me = me
        self._session = session
        self._store = store
        self._send_chunk = send_chunk
        self._refuse = refuse
        self._number = 0
        self._preparing: deque[_Preparing] = deque()
        self._step_at = -inf
        self._step_left = 0
        self._transfers: dict[int, _Transfer] = {}
        self._lanes: dict[NodeId, _Lane] = {}
        self._out_bytes = 0
        self._incoming: OrderedDict[tuple[NodeId, int, int], Incoming] = OrderedDict()
        self._heard_at: dict[tuple[NodeId, int, int], float] = {}
        self._finished: OrderedDict[tuple[NodeId, int, int], str] = OrderedDict()
        self._repair_budget = float(REPAIR_BYTES_PER_S)
        self._repair_at = -inf
        self.bytes_sent = 0

    # -- sending ---------------------------------------------------------------------------------------

    def send(
        self,
        job: str,
        stage: int,
        sources: Sequence[Source],
        to: NodeId,
        tag: object,
        now: float,
        *,
        covers: Covers | None = None,
        is_repair: bool = False,
    ) -> list[BulkEvent]:
        """Begin to bring outputs to a peer; to this one they are copied.

        Args:
            covers: what the sources are all of; without it they are whole outputs.
            tag: comes back in the event that says how it ended.
            is_repair: throttled, after everything else.

        Returns:
            How it ended, and whatever else has, where that is known at once.
        """
        if not sources and covers is None:
            return [Sent(tag=tag, size_bytes=0)]
        steps: Generator[int, None, tuple[bytes, int] | None]
        if to == self._me:
            steps = self._store.taking(job, stage, sources, covers)
        else:
            steps = self._store.offering(job, stage, sources, covers)
        self._preparing.append(_Preparing(to=to, tag=tag, sources=sources, is_repair=is_repair, steps=steps))
        return self.pump(now)

    def _prepare(self, now: float) -> list[BulkEvent]:
        """Read a little of what is to be sent, and begin what has been read."""
        if now != self._step_at:
            self._step_at, self._step_left = now, STEP_BYTES
        events: list[BulkEvent] = []
        while self._preparing and self._step_left > 0:
            one = self._preparing.popleft()
            try:
                self._step_left -= next(one.steps)
                self._preparing.append(one)
            except StopIteration as end:
                if end.value is None:
                    events.append(Sent(tag=one.tag, size_bytes=0))
                else:
                    header, size = end.value
                    if len(header) > MAX_SENT_HEADER_BYTES:
                        reason = (
                            f"its header of {len(header)} bytes fits no message; send fewer outputs at once"
                        )
                        events.append(SendFailed(tag=one.tag, reason=reason))
                    else:
                        self._begin(one, header, size, now)
            except (OSError, DamagedSegment) as error:
                events.append(SendFailed(tag=one.tag, reason=f"it cannot be read here: {error}"))
        return events

    def _begin(self, one: _Preparing, header: bytes, size: int, now: float) -> None:
        failpoint("push.begin")
        self._number += 1
        self._transfers[self._number] = _Transfer(
            number=self._number,
            to=one.to,
            tag=one.tag,
            header=header,
            size=size,
            sources=one.sources,
            is_repair=one.is_repair,
            chunks=iter(()),
            heard_at=now,
            moved_at=now,
        )
        self._rewind(self._transfers[self._number], 0)
        self._lanes.setdefault(one.to, _Lane()).turns.append(self._number)

    def _unprepare(self, unwanted: Callable[[_Preparing], bool]) -> list[_Preparing]:
        """Give up what has not begun."""
        dropped = [one for one in self._preparing if unwanted(one)]
        self._preparing = deque(one for one in self._preparing if not unwanted(one))
        for one in dropped:
            one.steps.close()
        return dropped

    def cancel(self, tag: object) -> None:
        """Forget a transfer; no event will speak of it."""
        self._unprepare(lambda one: one.tag == tag)
        for transfer in [one for one in self._transfers.values() if one.tag == tag]:
            self._end(transfer)

    def peer_is_gone(self, node: NodeId) -> list[BulkEvent]:
        """Give up all transfers to a peer that is dead or has left, and forget what came from it."""
        events: list[BulkEvent] = [
            SendFailed(tag=one.tag, reason="the peer is gone")
            for one in self._unprepare(lambda one: one.to == node)
        ]
        for transfer in [one for one in self._transfers.values() if one.to == node]:
            self._end(transfer)
            events.append(SendFailed(tag=transfer.tag, reason="the peer is gone"))
        for key in [key for key in self._incoming if key[0] == node]:
            self._abandon(key)
        return events

    def pump(self, now: float) -> list[BulkEvent]:
        """Send what windows and links allow."""
        self._grow_repair_budget(now)
        events = self._prepare(now)
        for node in list(self._lanes):
            lane = self._lanes.get(node)
            idle = 0
            while lane is not None and lane.turns and idle < len(lane.turns):
                transfer = self._transfers[lane.turns[0]]
                lane.turns.rotate(-1)
                try:
                    moved = self._send_next(transfer, lane)
                except OSError as error:
                    self._end(transfer)
                    events.append(SendFailed(tag=transfer.tag, reason=f"it cannot be read here: {error}"))
                    lane, idle = self._lanes.get(node), 0
                    continue
                if moved is None:
                    break  # the link takes no more
                idle = 0 if moved else idle + 1
        return events

    def take_repair_budget(self, size_bytes: int, now: float) -> bool:
        """Let something else that mends (scrubbing) read so much under the same throttle; False: not now."""
        self._grow_repair_budget(now)
        if self._repair_budget <= 0:
            return False
        self._repair_budget -= size_bytes
        return True

    def _grow_repair_budget(self, now: float) -> None:
        self._repair_budget = min(
            float(REPAIR_BYTES_PER_S),
            self._repair_budget + max(0.0, min(1.0, now - self._repair_at)) * REPAIR_BYTES_PER_S,
        )
        self._repair_at = now

    def _send_next(self, transfer: _Transfer, lane: _Lane) -> bool | None:
        """Send one chunk: True if it went, False if this transfer has to wait, None if the link is full."""
        if transfer.all_sent:
            return False
        if transfer.held is None:
            if lane.out_bytes >= WINDOW_BYTES or self._out_bytes >= ALL_WINDOWS_BYTES:
                return False
            if transfer.is_repair and self._repair_budget <= 0:
                return False
            data = next(transfer.chunks, b"")
            transfer.held = (transfer.sent, data)
        offset, data = transfer.held
        first = transfer.header if offset == 0 else b""
        failpoint("push.chunk")
        head: bytes = msgpack.packb([self._me, self._session, transfer.number, offset])
        if not self._send_chunk(transfer.to, (head, first, data)):
            return None
        transfer.held = None
        transfer.sent += len(data)
        lane.out_bytes += len(data)
        self._out_bytes += len(data)
        self.bytes_sent += len(data)
        if transfer.is_repair:
            self._repair_budget -= len(data)
        transfer.all_sent = transfer.sent >= transfer.size
        return True

    def receive(self, message: Received | Stored, sender: NodeId, now: float) -> list[BulkEvent]:
        """Take what the receiver of a transfer says."""
        transfer = self._transfers.get(message.transfer)
        if message.session != self._session or transfer is None or transfer.to != sender:
            return []
        transfer.heard_at = now
        match message:
            case Stored(reason=reason):
                self._end(transfer)
                if reason:
                    return [SendFailed(tag=transfer.tag, reason=reason), *self.pump(now)]
                return [Sent(tag=transfer.tag, size_bytes=transfer.size), *self.pump(now)]
            case Received(bytes_here=here):
                if here > transfer.acked:
                    transfer.moved_at = now
                    self._credit(transfer, min(here, transfer.sent) - transfer.acked)
                    transfer.acked = min(here, transfer.sent)
                elif here == 0 and transfer.acked:
                    self._rewind(transfer, 0)  # the receiver has lost what it had
                return self.pump(now)

    def tick(self, now: float) -> list[BulkEvent]:
        """Send again what seems lost; give up what does not move."""
        events: list[BulkEvent] = []
        for transfer in list(self._transfers.values()):
            if now - transfer.moved_at > GIVE_UP_AFTER_S:
                self._end(transfer)
                events.append(SendFailed(tag=transfer.tag, reason="no answer"))
            # What has no body is sent with no byte of it.
            elif (transfer.sent or transfer.all_sent) and now - transfer.heard_at > RESEND_AFTER_S:
                transfer.heard_at = now
                self._rewind(transfer, transfer.acked)
        for key, heard_at in list(self._heard_at.items()):
            if now - heard_at > ABANDON_AFTER_S:
                self._abandon(key)
        return [*events, *self.pump(now)]

    def next_deadline(self, now: float) -> float:
        """When to be ticked again."""
        if self._preparing:
            return now + STEP_PAUSE_S
        if not self._transfers:
            return now + ABANDON_AFTER_S if self._heard_at else inf
        waiting = any(one.held is not None or not one.all_sent for one in self._transfers.values())
        return now + (0.02 if waiting else 0.5)

    @property
    def is_busy(self) -> bool:
        """True while anything is on its way out."""
        return bool(self._transfers or self._preparing)

    def is_sending(self, tag: object) -> bool:
        """Whether a transfer with this tag is on its way, or about to be."""
        tags = [one.tag for one in self._preparing] + [one.tag for one in self._transfers.values()]
        return tag in tags

    def _rewind(self, transfer: _Transfer, offset: int) -> None:
        """Begin again at a byte of the body."""
        self._credit(transfer, transfer.sent - transfer.acked)
        transfer.chunks = read_sources(list(_without(transfer.sources, offset)), CHUNK_BYTES)
        transfer.sent = transfer.acked = offset
        transfer.held = None
        transfer.all_sent = False

    def _credit(self, transfer: _Transfer, count: int) -> None:
        lane = self._lanes.get(transfer.to)
        if lane is not None:
            lane.out_bytes -= count
            self._out_bytes -= count

    def _end(self, transfer: _Transfer) -> None:
        del self._transfers[transfer.number]
        lane = self._lanes[transfer.to]
        self._credit(transfer, transfer.sent - transfer.acked)
        lane.turns.remove(transfer.number)
        if not lane.turns:
            del self._lanes[transfer.to]

    # -- receiving -------------------------------------------------------------------------------------

    def take_chunk(self, parts: Sequence[memoryview], now: float) -> list[Outgoing]:
        """Take a bulk message; what is malformed is dropped."""
        try:
            head, header, data = parts
            sender, session, number, offset = msgpack.unpackb(head)
            if not (isinstance(sender, str) and len(sender) <= 64):
                return []
            if any(type(value) is not int or value < 0 for value in (session, number, offset)):
                return []
        except (ValueError, TypeError, msgpack.UnpackException):
            return []
        node = NodeId(sender)
        key = (node, session, number)
        if key in self._finished:
            return [(node, Stored(session=session, transfer=number, reason=self._finished[key]))]
        try:
            return [(node, self._stored(key, bytes(header), data, offset, now))]
        except (OSError, DamagedSegment, StoreFull) as error:
            self._abandon(key)
            return [(node, self._finish(key, str(error) or type(error).__name__))]

    def _stored(
        self, key: tuple[NodeId, int, int], header: bytes, data: memoryview, offset: int, now: float
    ) -> Received | Stored:
        _, session, number = key
        incoming = self._incoming.get(key)
        if incoming is None:
            if offset != 0 or not header:
                return Received(session=session, transfer=number, bytes_here=0)
            if len(self._incoming) >= MAX_INCOMING:
                self._abandon(next(iter(self._incoming)))
            parsed = parse_header(header)
            if reason := self._refuse(parsed.job, parsed.stage, key[0]):
                return self._finish(key, reason)
            incoming = self._incoming[key] = self._store.receive(header)
        else:
            job, stage, _ = incoming.place
            if reason := self._refuse(job, stage, key[0]):  # the job has ended while this was on its way
                self._abandon(key)
                return self._finish(key, reason)
        self._heard_at[key] = now
        if offset == incoming.received:
            failpoint("push.take")
            incoming.write(data)
        if incoming.received == incoming.size:
            del self._incoming[key], self._heard_at[key]
            try:
                incoming.finish()
            finally:
                incoming.abort()
            return self._finish(key, "")
        return Received(session=session, transfer=number, bytes_here=incoming.received)

    def arriving(self, since: float) -> Iterator[tuple[str, int, Sequence[int]]]:
        """Yield (job, stage, attempts) of what is on its way here, and has moved since then."""
        for key, incoming in self._incoming.items():
            if self._heard_at.get(key, -inf) >= since:
                job, stage, covers = incoming.place
                yield job, stage, covers.attempts

    def _finish(self, key: tuple[NodeId, int, int], reason: str) -> Stored:
        self._finished[key] = reason
        if len(self._finished) > MAX_REMEMBERED:
            self._finished.popitem(last=False)
        return Stored(session=key[1], transfer=key[2], reason=reason)

    def _abandon(self, key: tuple[NodeId, int, int]) -> None:
        incoming = self._incoming.pop(key, None)
        self._heard_at.pop(key, None)
        if incoming is not None:
            incoming.abort()

    def close(self) -> None:
        """Remove what has come half."""
        self._unprepare(lambda _: True)
        for key in list(self._incoming):
            self._abandon(key)


def _without(sources: Sequence[Source], count: int) -> Iterator[Source]:
    """Give the sources without their first bytes: what has arrived is not read again."""
    for source in sources:
        skipped = min(count, source.entry.length)
        count -= skipped
        if skipped == 0:
            yield source
        elif skipped < source.entry.length:
            left = replace(source.entry, length=source.entry.length - skipped)
            yield replace(source, entry=left, offset=source.offset + skipped)
