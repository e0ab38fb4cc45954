"""The peer: one loop that lets pure machines talk over a transport.

Theory
------
A turn of the loop is: wait until something arrives or a deadline comes; read what has arrived, a bounded
number of frames; pass each through the gate to the service that speaks its type; tick the services whose
deadline has come; perform, in order, what they want done.  `Peer.turn` is everything but the waiting, so
tests drive peers over the in-memory transport on a clock of their own.

No user code runs here, nothing blocks but the wait, and the log is not written when its reader is slow.
When the loop is late all the same (a starved machine, SIGSTOP), it tells membership before anything else
is looked at: the answers that seem overdue may lie unread in the inbox.

The end is graceful: `leave` has the engine hand on what it holds, for `DRAIN_LIMIT_S` at the most, then says
goodbye, and the loop runs on until the news has spread, but no longer than membership's own limit.  A process
that was refused its identity stops with `IdentityTaken`.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from typing import assert_never

from membership.effects import (
    Announce,
    ConflictingIdentity,
    Event,
    MemberDied,
    MemberLeft,
    MemberReturned,
    Persist,
    SeedSilent,
    Send,
)
from membership.swim import Swim
from p2p.addresses import bulk_address
from p2p.answers import Answers, describe
from p2p.errors import IdentityTaken, MalformedFrame, NotAllowed, OversizedFrame, WireError
from p2p.forwarding import FORWARD_ROOM, Forward, Forwarding
from p2p.gate import Gate, worth_telling
from p2p.membership_service import MembershipService
from p2p.questions import Refused
from p2p.refusals import Refusals
from p2p.roles import Role
from p2p.service import Effect, Engine, Origin, Reply, Say, Service
from p2p.transport import Arrival, BulkArrival, LinkFailed, StrangerRefused, Transport
from p2p.wire import MAX_CONTROL_BYTES, Envelope, WireFormat

__all__ = ["Peer"]

FRAMES_PER_TURN = 256
BULK_PER_TURN = 8  # of up to a megabyte each: about as long as a turn should take
MAINTENANCE_PERIOD_S = 0.5
LONGEST_WAIT_S = 0.5  # as maintenance is due
DRAIN_LIMIT_S = 20.0
MAX_REMEMBERED_FAILURES = 256


class Peer:
    """Composes membership and other services over a transport.

    Args:
        cluster: the cluster's name.
        swim: our membership machine, not started.
        transport: an open transport with an inbox; the caller closes it.
        wire: the wire format.
        persist: stores (incarnation, session) for the next start.
        log: takes one line of text; must not block.
        services: further machines for the loop.
        engine: the machine that runs jobs; without it bulk messages are dropped.
    """

    def __init__(
        self,
        *,
        cluster: str,
        swim: Swim,
        transport: Transport,
        wire: WireFormat,
        persist: Callable[[int, int], None],
        log: Callable[[str], None],
        services: Sequence[Service] = (),
        engine: Engine | None = None,
    ) -> None:
        self.cluster = cluster
        self.swim = swim
        self._transport = transport
        self._wire = wire
        self._persist = persist
        self._log = log
        self._gate = Gate(wire, cluster)
        self._refusals = Refusals()
        self._counters: Counter[str] = Counter()
        self._membership = MembershipService(swim)
        self._forwarding = Forwarding(swim, transport, self._counters)
        self.answers = Answers(cluster, swim, lambda: self._refusals.counts, self.counters)
        self._engine = engine
        self._services: tuple[Service, ...] = (
            self._membership,
            self.answers,
            *services,
            *((engine,) if engine is not None else ()),
        )
        if engine is not None:
            engine.set_early(self._perform)
        self._by_message = _routes(self._services)
        self._due_at = inf  # when the coming turn is expected at the latest
        self._maintained_at = -inf
        self._ring_digest = b""
        self._digest_version = -1
        self._failures: OrderedDict[str, str] = OrderedDict()
        self._drain_until = inf
        self._has_said_goodbye = False

    # ---- the life of a peer --------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Begin: look for the seeds."""
        for service in self._services:
            self._perform(service.start(now), now)

    def turn(self, now: float) -> None:
        """Do everything that can be done at `now`.

        Raises:
            IdentityTaken: another live process has our node id.
        """
        self.swim.observe_lag(now - self._due_at, now)
        for arrival in self._transport.receive(FRAMES_PER_TURN):
            self._take(arrival, now)
        self._pump(now)
        for service in self._services:
            if service.next_deadline() <= now:
                self._perform(service.tick(now), now)
        if now - self._maintained_at >= MAINTENANCE_PERIOD_S:
            self._maintain(now)
        self._due_at = max(now, self._next_deadline(now))

    def _pump(self, now: float) -> None:
        if self._engine is None:
            # One that lay unread would keep every wait from waiting.
            self._counters["bulk_unwanted"] += len(self._transport.receive_bulk(FRAMES_PER_TURN))
            return
        arrivals = [
            one
            for one in self._transport.receive_bulk(BULK_PER_TURN)
            if self._may_bring(one, now) and not self._forwarding.take_bulk(one, now)
        ]
        self._forwarding.flush(now)
        self._perform(self._engine.pump(arrivals, now), now)

    def _may_bring(self, arrival: BulkArrival, now: float) -> bool:
        """Whether a bulk message comes from a peer: clients have keys too, and come in at the same door."""
        if arrival.role >= Role.PEER:
            return True
        refusal = NotAllowed("outputs", arrival.role.label, Role.PEER.label)
        line = self._refusals.count(refusal.kind, f"from {arrival.remote}: {refusal}", now)
        if line is not None:
            self._log(line)
        return False

    def wait_s(self, now: float) -> float:
        """How long the coming wait may last."""
        return min(LONGEST_WAIT_S, max(0.0, self._due_at - now))

    def run(self, clock: Callable[[], float], wanted: Callable[[], bool]) -> None:
        """Turn until `wanted` says no, then leave.

        Args:
            clock: monotonic seconds.
            wanted: asked in each turn; something that changes its answer must also wake the transport.

        Raises:
            IdentityTaken: another live process has our node id.
        """
        self._due_at = inf
        while True:
            now = clock()
            self.turn(now)
            if self.has_left:
                self._transport.wait(0.0)  # lets the last frames reach the I/O thread
                return
            if not wanted():
                self.leave(now)
            self._transport.wait(self.wait_s(clock()))

    def leave(self, now: float) -> None:
        """Hand on what lies here, then say goodbye; to be called until `has_left`, which turns true when that
        has spread or taken too long.
        """
        engine = self._engine
        if engine is not None and self._drain_until is inf:
            self._perform(engine.drain(now), now)
        self._drain_until = min(self._drain_until, now + DRAIN_LIMIT_S)
        is_drained = engine is None or self.swim.stopped or engine.is_drained(now)
        if self._has_said_goodbye or not (is_drained or now >= self._drain_until):
            return
        self._has_said_goodbye = True
        if engine is not None:
            self._perform(engine.leave(now), now)
        if not self.swim.stopped:
            self._perform(self.swim.leave(now), now)
        self._due_at = now

    @property
    def has_left(self) -> bool:
        """Whether the goodbye is done."""
        return self._has_said_goodbye and self.swim.stopped

    def counters(self) -> Mapping[str, int]:
        """What the loop, the transport and the engine have counted."""
        engine = self._engine.counters() if self._engine is not None else {}
        return {**self._counters, **self._transport.counters(), **engine}

    # ---- what arrives --------------------------------------------------------------------------------------

    def _take(self, arrival: Arrival, now: float) -> None:
        try:
            envelope = self._gate.admit(arrival.frame, arrival.role)
            if isinstance(envelope.message, Forward):
                self._judge_inner(envelope.message, arrival.role)
        except WireError as refusal:
            self._refuse(arrival, refusal, now)
            return
        self._counters["frames_received"] += 1
        message = envelope.message
        if isinstance(message, Forward):
            self._forwarding.pass_on(message)
            return
        service = self._by_message.get(type(message))
        if service is None:  # an answer to a question that a peer never asks
            if isinstance(message, Refused):
                self._remember_failure(arrival.remote, message.text)
            return
        if envelope.ring_digest != self._digest():
            self._counters["frames_with_another_view"] += 1
        origin = Origin(envelope.sender, envelope.incarnation, arrival.role, arrival.connection)
        self._perform(service.receive(message, origin, now), now)

    def _judge_inner(self, message: Forward, role: Role) -> None:
        """Judge what is to be passed on, for whoever receives it would hold it against us.

        Raises:
            WireError: it is not sound.
        """
        if isinstance(self._gate.admit(message.frame, role).message, Forward):
            raise MalformedFrame("a frame to be passed on asks to be passed on once more")

    def _refuse(self, arrival: Arrival, refusal: WireError, now: float) -> None:
        line = self._refusals.count(refusal.kind, f"from {arrival.remote}: {refusal}", now)
        if line is not None:
            self._log(line)
        # An answer that is refused is not answered: two peers would do so for ever.
        if arrival.connection is not None and worth_telling(refusal):
            self._reply(Reply(arrival.connection, Refused(number=0, kind=refusal.kind, text=str(refusal))))

    # ---- what is to be done --------------------------------------------------------------------------------

    def _perform(self, effects: Iterable[Effect], now: float) -> None:
        for effect in effects:
            match effect:
                case Send():
                    self._send(effect)
                case Reply():
                    self._reply(effect)
                case Say():
                    self._say(effect)
                case Persist():
                    self._persist(effect.incarnation, effect.session)
                case Announce():
                    self._announce(effect.event, now)
                case _:
                    assert_never(effect)

    def _send(self, send: Send) -> None:
        frame = self._framed(send.message)
        if frame is not None:
            self._counters["frames_sent"] += 1
            self._transport.send(send.to_address, frame)

    def _say(self, say: Say) -> None:
        frame = self._framed(say.message)
        if frame is None:
            return
        self._counters["frames_sent"] += 1
        relay = self.swim.detour(say.to)
        if relay is not None and len(frame) + FORWARD_ROOM <= MAX_CONTROL_BYTES:
            wrapped = self._framed(Forward(to=say.to, frame=frame))
            assert wrapped is not None
            self._transport.send(relay.address, wrapped)
        else:
            self._transport.send(say.address, frame)

    def _reply(self, reply: Reply) -> None:
        frame = self._framed(reply.message)
        if frame is not None:
            self._counters["frames_sent"] += 1
            self._transport.reply(reply.connection, frame)

    def _framed(self, message: object) -> bytes | None:
        me = self.swim.me
        envelope = Envelope(
            cluster=self.cluster,
            ring_digest=self._digest(),
            sender=me.id,
            incarnation=me.incarnation,
            message=message,
        )
        try:
            return self._wire.encode(envelope)
        except (OversizedFrame, MalformedFrame) as error:
            self._counters["frames_not_sendable"] += 1
            self._log(f"cannot send {type(message).__name__}: {error}")
            return None

    def _announce(self, event: Event, now: float) -> None:
        if isinstance(event, SeedSilent):
            reason = self._failures.get(event.address, "it does not answer")
            self._log(f"seed {event.address} is not reached: {reason}; it is tried again for ever")
        else:
            told = describe(event)
            by = f", by {', '.join(told.by)}" if told.by else ""
            self._log(f"{told.event} {told.node or 'this peer'} {told.address} @{told.incarnation}{by}")
        if isinstance(event, MemberDied | MemberLeft | MemberReturned):
            # Of one that is back, too: the link that knocked at its closed door meanwhile waits for seconds
            # between two attempts, longer than the others wait for our answers before they bury it again.
            self._transport.forget(event.member.address)
            # Its next life has another port for data, so nobody would use that link any more.
            if bulk := bulk_address(event.member):
                self._transport.forget(bulk)
        for service in self._services:
            self._perform(service.hear(event, now), now)
        if isinstance(event, ConflictingIdentity):
            raise IdentityTaken(
                f"node id {event.mine.id} belongs to a live peer at {event.holder.address}"
                f" (process {event.holder.pid}): stop that one, or give this one another --data"
            )

    # ---- housekeeping --------------------------------------------------------------------------------------

    def _maintain(self, now: float) -> None:
        self._maintained_at = now
        self._transport.maintain(now)
        for notice in self._transport.take_notices():
            match notice:
                case StrangerRefused(kind, remote):
                    line = self._refusals.count(kind, f"from {remote}" if remote else "", now)
                    if line is not None:
                        self._log(line)
                case LinkFailed(address, reason):
                    self._remember_failure(address, reason)
                case _:
                    assert_never(notice)
        for line in self._refusals.due(now):
            self._log(line)

    def _remember_failure(self, address: str, reason: str) -> None:
        """Keep why an address cannot be talked to, and say it once, unless it is simply not there."""
        if self._failures.get(address) != reason and reason != "nobody answers there":
            self._log(f"{address} cannot be talked to: {reason}")
        self._failures[address] = reason
        self._failures.move_to_end(address)
        if len(self._failures) > MAX_REMEMBERED_FAILURES:
            self._failures.popitem(last=False)

    def _next_deadline(self, now: float) -> float:
        maintenance = self._maintained_at + MAINTENANCE_PERIOD_S
        forwarding = self._forwarding.next_deadline(now)
        return min(maintenance, forwarding, *(service.next_deadline() for service in self._services))

    def _digest(self) -> bytes:
        if self._digest_version != self.swim.version:
            self._digest_version = self.swim.version
            self._ring_digest = self.swim.view.digest[:8]
        return self._ring_digest


def _routes(services: Iterable[Service]) -> dict[type, Service]:
    routes: dict[type, Service] = {}
    for service in services:
        for message in service.handles:
            assert message not in routes, f"two services handle {message.__name__}"
            routes[message] = service
    return routes
