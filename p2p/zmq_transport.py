"""The transport over TCP: ZeroMQ sockets with CURVE; the only module that imports zmq.

Theory
------
One ROUTER for control frames and one for bulk frames are the inboxes; one DEALER for each address spoken to
is a *link*.  All live in one context of their own, so that several transports in one process do not share a
doorman.

**Authentication.**  Every socket speaks CURVE.  For each handshake libzmq asks the socket bound to
``inproc://zeromq.zap.01``; we answer from the loop (`p2p.zap`), without a thread.  A domain must be set for
libzmq to ask at all, and ``ZAP_ENFORCE_DOMAIN`` for it to turn away when nobody answers: either alone lets
anyone in. Because that is easily lost in a change, a transport that listens first knocks at its own doors
with a random key, and does not open if it gets in.

**Identities.**  We set none, so each ROUTER draws one for each connection.  A name chosen by the sender
could be another's, and a ROUTER ignores the second connection with a name in silence, also when the first
is a corpse.

**Links.**  With ``IMMEDIATE`` a DEALER takes a frame only when a connection stands; until then frames
wait with us, a few and not long, because old pings are worth nothing.  A link that has been unable to
send for `STUCK_LIMIT_S` is closed, and made afresh when next needed: a DEALER that was refused once never
tries again, and a TCP connection that slept through a partition may sleep long after it.  The kernel
watches the others (``TCP_MAXRT``, keep-alive) at no cost to the loop.

**Sizes.**  libzmq cuts the connection of a frame above ``MAXMSGSIZE``, without a word that could be
counted. So its limit lies above ours: what is too large for us and not for it is counted and refused
above (`p2p.gate`), the rest costs a connection and never memory.

**Strangers.**  A handshake may take `HANDSHAKE_LIMIT_S`.  What fails is reported by socket monitors.  A
monitor's own pipe must have no limit: libzmq's I/O thread waits when it is full, and with it everything.
"""

from __future__ import annotations

import math
import struct
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

import zmq
from zmq.utils import z85

from p2p.addresses import HostPort, parse_address
from p2p.errors import AddressInUse, BadAddress, KeysUnusable, OversizedFrame, SelfTestFailed
from p2p.handshakes import DoorEvent, DoorLedger
from p2p.keys import KeyPair, KeySet
from p2p.roles import Role
from p2p.transport import (
    MAX_BULK_BYTES,
    MAX_BULK_PARTS,
    Arrival,
    BulkArrival,
    Connection,
    LinkFailed,
    Notice,
    StrangerRefused,
    check_bulk,
)
from p2p.wire import MAX_CONTROL_BYTES
from p2p.zap import ZAP_DOMAIN, judge

__all__ = ["ZmqTransport", "new_key_pair"]

HANDSHAKE_LIMIT_S = 3.0
SELF_TEST_LIMIT_S = 5.0
STUCK_LIMIT_S = 3.0
WAITING_LIMIT_S = 2.0
IDLE_LIMIT_S = 90.0
MAX_WAITING = 64
MAX_LINKS = 512
MAX_ANSWERS = 4_096
MAX_NOTICES = 4_096
QUEUE_LIMIT = 256  # control frames in a pipe, each way
BULK_QUEUE_LIMIT = 4  # bulk messages in a pipe: this times MAX_BULK_BYTES is memory
BULK_STUCK_LIMIT_S = 30.0  # a receiver of bulk may be slow; the link is how it says so
BACKLOG = 1_024
HARD_LIMIT_BYTES = MAX_BULK_BYTES + 256  # of a frame as it travels: encryption adds 33 bytes
MAX_SOCKETS = 4_096
DRAIN_LIMIT = 128  # things taken from one socket in one wake-up, so that none starves the others

_ALL_FAILURES = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
_DOOR_EVENTS = {
    int(zmq.EVENT_HANDSHAKE_SUCCEEDED): DoorEvent.SUCCEEDED,
    int(zmq.EVENT_HANDSHAKE_FAILED_AUTH): DoorEvent.REFUSED,
    int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL): DoorEvent.PROTOCOL,
    int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL): DoorEvent.UNFINISHED,
    int(zmq.EVENT_DISCONNECTED): DoorEvent.ENDED,
}
_LINK_EVENTS = _ALL_FAILURES | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_CLOSED
_EVENT = struct.Struct("=HI")


def new_key_pair() -> KeyPair:
    """A fresh CURVE pair from the system's randomness."""
    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode(), secret.decode())


class _RouterConnection(Connection):
    __slots__ = ("identity",)

    def __init__(self, identity: bytes) -> None:
        self.identity = identity


def _close_all(context: zmq.Context[zmq.Socket[bytes]], _sockets: zmq.Poller) -> None:
    context.destroy(linger=0)


@dataclass(slots=True, eq=False)
class _Link:
    """A DEALER to one address, and the frames that wait for its connection."""

    address: str
    bulk: bool
    socket: zmq.Socket[bytes]
    monitor: zmq.Socket[bytes] | None  # closed once the connection stands
    used_at: float
    waiting: deque[tuple[float, bytes]] = field(default_factory=deque)
    stuck_since: float | None = None


class ZmqTransport:
    """A `p2p.transport.Transport` over TCP.

    Args:
        keys: the cluster's keys; listening needs the whole set.
        listen: where to serve, a number and a port (0: any free one); None for a client, which has no inbox.
        bulk_port: the port of the bulk inbox on the same host; 0 for any free one.
        advertise: what others are told to connect to, where that differs from `listen`.
        clock: monotonic seconds.

    Raises:
        AddressInUse, BadAddress: an inbox cannot be bound.
        KeysUnusable: the keys do not allow to serve.
        SelfTestFailed: a random key was let in.
    """

    def __init__(
        self,
        keys: KeySet,
        *,
        listen: HostPort | None = None,
        bulk_port: int = 0,
        advertise: HostPort | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = keys
        self._pair = keys.roles[keys.strongest_role]
        self._clock = clock
        self._names = count()
        self._handlers: dict[zmq.Socket[bytes] | int, Callable[[int], None]] = {}
        self._links: OrderedDict[tuple[str, bool], _Link] = OrderedDict()
        self._answers: deque[Arrival] = deque(maxlen=MAX_ANSWERS)
        self._notices: deque[Notice] = deque(maxlen=MAX_NOTICES)
        self._ledger, self._bulk_ledger = DoorLedger(), DoorLedger()
        self._dropped = 0
        self._poller = zmq.Poller()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, MAX_SOCKETS)
        # A context that is collected with its sockets waits for ever for them to be closed: it does not know
        # them any more.  The poller keeps them until this has closed them.
        self._hang_up = weakref.finalize(self, _close_all, self._context, self._poller)
        self._inbox: zmq.Socket[bytes] | None = None
        self._bulk_inbox: zmq.Socket[bytes] | None = None
        self.address = self.bulk_address = ""
        try:
            if listen is not None:
                self._open_inboxes(listen, bulk_port, advertise)
        except BaseException:
            self.close()
            raise

    # ---- the interface -------------------------------------------------------------------------------------

    def send(self, to: str, frame: bytes) -> bool:
        """See `Transport.send`."""
        if len(frame) > MAX_CONTROL_BYTES:
            raise OversizedFrame(len(frame), MAX_CONTROL_BYTES)
        link = self._link(to, bulk=False)
        if link is None:
            self._dropped += 1
            return False
        if not link.waiting and self._try_send(link, [frame]):
            return True
        if len(link.waiting) >= MAX_WAITING:
            link.waiting.popleft()  # the oldest is worth least
            self._dropped += 1
        link.waiting.append((link.used_at + WAITING_LIMIT_S, frame))
        return True

    def reply(self, connection: Connection, frame: bytes) -> bool:
        """See `Transport.reply`."""
        assert isinstance(connection, _RouterConnection)
        assert self._inbox is not None
        if len(frame) > MAX_CONTROL_BYTES:
            raise OversizedFrame(len(frame), MAX_CONTROL_BYTES)
        try:
            self._inbox.send_multipart([connection.identity, frame], zmq.DONTWAIT)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise
            self._dropped += 1
            return False
        return True

    def send_bulk(self, to: str, parts: Sequence[bytes | memoryview]) -> bool:
        """See `Transport.send_bulk`."""
        check_bulk(parts)
        link = self._link(to, bulk=True)
        return link is not None and self._try_send(link, parts)

    def receive(self, most: int) -> list[Arrival]:
        """See `Transport.receive`."""
        arrivals: list[Arrival] = []
        while self._answers and len(arrivals) < most:
            arrivals.append(self._answers.popleft())
        while self._inbox is not None and len(arrivals) < most:
            try:
                identity, *parts = self._inbox.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                break
            self._ledger.heard(identity.get(zmq.SRCFD))
            role, remote = _authenticated(identity)
            frame = parts[0].bytes if len(parts) == 1 else b""  # none of ours has several parts: garbage
            arrivals.append(Arrival(frame, role, _RouterConnection(identity.bytes), remote))
        return arrivals

    def receive_bulk(self, most: int) -> list[BulkArrival]:
        """See `Transport.receive_bulk`."""
        arrivals: list[BulkArrival] = []
        while self._bulk_inbox is not None and len(arrivals) < most:
            try:
                identity, *parts = self._bulk_inbox.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                break
            self._bulk_ledger.heard(identity.get(zmq.SRCFD))
            role, remote = _authenticated(identity)
            if 0 < len(parts) <= MAX_BULK_PARTS:
                arrivals.append(BulkArrival(tuple(part.buffer for part in parts), role, remote))
            else:
                self._notices.append(StrangerRefused("malformed", remote))
        return arrivals

    def take_notices(self) -> list[Notice]:
        """See `Transport.take_notices`."""
        notices = list(self._notices)
        self._notices.clear()
        return notices

    def wait(self, timeout_s: float) -> None:
        """See `Transport.wait`."""
        if self._answers:
            timeout_s = 0.0
        for socket, events in self._poller.poll(max(0, math.ceil(timeout_s * 1000))):
            handler = self._handlers.get(socket)  # a handler before this one may have closed the socket
            if handler is not None:
                handler(events)

    def watch(self, descriptor: int) -> None:
        """See `Transport.watch`."""
        self._poller.register(descriptor, zmq.POLLIN)

    def maintain(self, now: float) -> None:
        """See `Transport.maintain`."""
        for key, link in list(self._links.items()):
            while link.waiting and link.waiting[0][0] <= now:
                link.waiting.popleft()
                self._dropped += 1
            patience_s = BULK_STUCK_LIMIT_S if link.bulk else STUCK_LIMIT_S
            stuck = link.stuck_since is not None and now - link.stuck_since >= patience_s
            if stuck or now - link.used_at >= IDLE_LIMIT_S:
                self._close_link(key)

    def forget(self, address: str) -> None:
        """See `Transport.forget`."""
        for key in ((address, False), (address, True)):
            if key in self._links:
                self._close_link(key)

    def counters(self) -> Mapping[str, int]:
        """See `Transport.counters`."""
        return {
            "frames_dropped": self._dropped,
            "links": len(self._links),
            "connections_ended": self._ledger.ended + self._bulk_ledger.ended,
        }

    def close(self) -> None:
        """See `Transport.close`."""
        self._handlers.clear()
        self._links.clear()
        self._hang_up()

    # ---- the inboxes ---------------------------------------------------------------------------------------

    def _open_inboxes(self, listen: HostPort, bulk_port: int, advertise: HostPort | None) -> None:
        if not self._keys.may_serve:
            raise KeysUnusable(
                f"these keys are for {self._keys.strongest_role.label} only: a peer needs a peer's token"
            )
        users = {z85.decode(pair.public.encode()): role for role, pair in self._keys.roles.items()}
        doorman = self._context.socket(zmq.ROUTER)
        doorman.bind("inproc://zeromq.zap.01")  # before the inboxes, which ask it
        self._poll(doorman, lambda _events: self._answer_the_door(doorman, users))
        self._inbox, port = self._open_inbox(listen, self._ledger, QUEUE_LIMIT)
        bulk_listen = HostPort(listen.host, bulk_port)
        self._bulk_inbox, bulk = self._open_inbox(bulk_listen, self._bulk_ledger, BULK_QUEUE_LIMIT)
        told = advertise or listen
        self.address = str(HostPort(told.host, told.port if advertise and told.port else port))
        self.bulk_address = str(HostPort(told.host, bulk))
        knock = "127.0.0.1" if listen.host == "0.0.0.0" else "::1" if listen.is_wildcard else listen.host
        for own_port in (port, bulk):
            self._self_test(str(HostPort(knock, own_port)))
        self._notices.clear()
        self._poller.register(self._inbox, zmq.POLLIN)
        self._poller.register(self._bulk_inbox, zmq.POLLIN)

    def _open_inbox(
        self, listen: HostPort, ledger: DoorLedger, queue_limit: int
    ) -> tuple[zmq.Socket[bytes], int]:
        inbox = self._context.socket(zmq.ROUTER)
        _harden(inbox, queue_limit)
        inbox.setsockopt(zmq.CURVE_SERVER, 1)
        assert self._keys.ring.secret is not None
        inbox.setsockopt(zmq.CURVE_SECRETKEY, self._keys.ring.secret.encode())
        inbox.setsockopt(zmq.ROUTER_MANDATORY, 1)  # an answer that cannot be delivered is told, not swallowed
        inbox.setsockopt(zmq.BACKLOG, BACKLOG)
        inbox.setsockopt(zmq.IPV6, 1 if ":" in listen.host else 0)
        monitor = self._monitor(inbox, sum(_DOOR_EVENTS))
        self._poll(monitor, lambda _events: self._note_at_the_door(monitor, ledger))
        try:
            inbox.bind(f"tcp://{listen}")
        except zmq.ZMQError as error:
            raise _bind_error(listen, error) from None
        endpoint = inbox.getsockopt(zmq.LAST_ENDPOINT)
        assert isinstance(endpoint, bytes)
        return inbox, int(endpoint.rstrip(b"\0").rpartition(b":")[2])

    def _answer_the_door(self, doorman: zmq.Socket[bytes], users: Mapping[bytes, Role]) -> None:
        for _ in range(DRAIN_LIMIT):
            try:
                parts = doorman.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            verdict = judge(parts[2:], users)
            if verdict is None:
                continue
            if verdict.role is None:
                self._notices.append(StrangerRefused("bad_key", verdict.remote))
            try:
                doorman.send_multipart([*parts[:2], *verdict.reply], zmq.DONTWAIT)
            except zmq.ZMQError as error:
                if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):  # it has hung up meanwhile
                    raise

    def _note_at_the_door(self, monitor: zmq.Socket[bytes], ledger: DoorLedger) -> None:
        for event, value in _monitor_events(monitor):
            kind = ledger.note(_DOOR_EVENTS[event], value)
            if kind is not None:
                self._notices.append(StrangerRefused(kind, ""))

    def _self_test(self, address: str) -> None:
        """Knock at our own door with a key that nobody knows."""
        verdict: list[int] = []
        stranger = self._context.socket(zmq.DEALER)
        self._make_client(stranger, new_key_pair(), address)
        monitor = self._monitor(stranger, _ALL_FAILURES | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self._poll(monitor, lambda _events: verdict.extend(event for event, _ in _monitor_events(monitor)))
        stranger.connect(f"tcp://{address}")
        deadline = self._clock() + SELF_TEST_LIMIT_S
        while not verdict and self._clock() < deadline:
            self.wait(0.05)
        self._unpoll(monitor)
        stranger.monitor(None, 0)
        monitor.close()
        stranger.close()
        if verdict[:1] != [zmq.EVENT_HANDSHAKE_FAILED_AUTH]:
            what = "let in" if verdict == [zmq.EVENT_HANDSHAKE_SUCCEEDED] else "not clearly refused"
            raise SelfTestFailed(
                f"a random key was {what} at {address} by libzmq {zmq.zmq_version()}: not serving"
                " (check that nothing else answers there, and reinstall pyzmq)"
            )

    # ---- the links -----------------------------------------------------------------------------------------

    def _link(self, address: str, *, bulk: bool) -> _Link | None:
        key = (address, bulk)
        link = self._links.get(key)
        if link is None:
            if len(self._links) >= MAX_LINKS:
                self._close_link(next(iter(self._links)))
            try:
                link = self._open_link(key)
            except (BadAddress, zmq.ZMQError) as error:  # or no descriptors left
                self._notices.append(LinkFailed(address, str(error)))
                return None
        link.used_at = self._clock()
        self._links.move_to_end(key)
        return link

    def _open_link(self, key: tuple[str, bool]) -> _Link:
        address, bulk = key
        if not parse_address(address).is_numeric:
            raise BadAddress(f"{address} holds a name: addresses on the wire are numbers")
        socket = self._context.socket(zmq.DEALER)
        monitor = None
        try:
            self._make_client(socket, self._pair, address, bulk=bulk)
            monitor = self._monitor(socket, _LINK_EVENTS)
            socket.connect(f"tcp://{address}")
        except zmq.ZMQError:
            for made in (socket, monitor):
                if made is not None:
                    made.close(linger=0)
            raise
        link = _Link(address, bulk, socket, monitor, self._clock())
        self._links[key] = link
        self._poll(monitor, lambda _events: self._link_news(link))
        self._poll(socket, lambda events: self._link_ready(link, events))
        return link

    def _make_client(
        self, socket: zmq.Socket[bytes], pair: KeyPair, address: str, *, bulk: bool = False
    ) -> None:
        assert pair.secret is not None
        _harden(socket, BULK_QUEUE_LIMIT if bulk else QUEUE_LIMIT)
        socket.setsockopt(zmq.CURVE_SERVERKEY, self._keys.ring.public.encode())
        socket.setsockopt(zmq.CURVE_PUBLICKEY, pair.public.encode())
        socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret.encode())
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.CONNECT_TIMEOUT, int(HANDSHAKE_LIMIT_S * 1000))
        socket.setsockopt(zmq.RECONNECT_IVL, 100)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2_000)
        socket.setsockopt(zmq.IPV6, 1 if address.startswith("[") else 0)

    def _try_send(self, link: _Link, parts: Sequence[bytes | memoryview]) -> bool:
        try:
            link.socket.send_multipart(parts, zmq.DONTWAIT, copy=sum(map(len, parts)) < 65_536)
        except zmq.Again:
            if link.stuck_since is None:
                link.stuck_since = link.used_at
                self._poller.modify(link.socket, zmq.POLLIN | zmq.POLLOUT)
            return False
        return True

    def _link_ready(self, link: _Link, events: int) -> None:
        if events & zmq.POLLIN:
            for _ in range(DRAIN_LIMIT):
                try:
                    parts = link.socket.recv_multipart(zmq.DONTWAIT)
                except zmq.Again:
                    break
                # Who answers owns the ring's secret key, or the handshake would have failed.
                self._answers.append(Arrival(parts[0], Role.PEER, None, link.address))
        if events & zmq.POLLOUT:
            link.stuck_since = None
            self._poller.modify(link.socket, zmq.POLLIN)
            while link.waiting and self._try_send(link, [link.waiting[0][1]]):
                link.waiting.popleft()

    def _link_news(self, link: _Link) -> None:
        """Follow a young link until its connection stands, and tell why if it does not."""
        assert link.monitor is not None
        for event, value in _monitor_events(link.monitor):
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._close_monitor(link)
                return
            if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                reason = "it does not know our key"
            elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                reason = f"what answers there is no peer of this cluster (protocol error {value:#x})"
            elif event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
                reason = "it hung up during the handshake; perhaps it belongs to another cluster"
            else:
                reason = "nobody answers there"
            self._notices.append(LinkFailed(link.address, reason))

    def _close_monitor(self, link: _Link) -> None:
        if link.monitor is not None:
            self._unpoll(link.monitor)
            link.socket.monitor(None, 0)
            link.monitor.close(linger=0)
            link.monitor = None

    def _close_link(self, key: tuple[str, bool]) -> None:
        link = self._links.pop(key)
        self._dropped += len(link.waiting)
        self._close_monitor(link)
        self._unpoll(link.socket)
        link.socket.close(linger=0)

    # ---- small things --------------------------------------------------------------------------------------

    def _monitor(self, socket: zmq.Socket[bytes], events: int) -> zmq.Socket[bytes]:
        name = f"inproc://monitor-{next(self._names)}"
        socket.monitor(name, events)
        monitor = self._context.socket(zmq.PAIR)
        monitor.setsockopt(zmq.RCVHWM, 0)  # no limit: a full pipe would stop libzmq's I/O thread
        monitor.setsockopt(zmq.LINGER, 0)
        monitor.connect(name)
        return monitor

    def _poll(self, socket: zmq.Socket[bytes], handler: Callable[[int], None]) -> None:
        self._poller.register(socket, zmq.POLLIN)
        self._handlers[socket] = handler

    def _unpoll(self, socket: zmq.Socket[bytes]) -> None:
        self._poller.unregister(socket)
        del self._handlers[socket]


def _harden(socket: zmq.Socket[bytes], queue_limit: int) -> None:
    """What holds for every socket that touches a network."""
    for option, value in (
        (zmq.LINGER, 0),
        (zmq.MAXMSGSIZE, HARD_LIMIT_BYTES),
        (zmq.SNDHWM, queue_limit),
        (zmq.RCVHWM, queue_limit),
        (zmq.HANDSHAKE_IVL, int(HANDSHAKE_LIMIT_S * 1000)),
        (zmq.ZAP_ENFORCE_DOMAIN, 1),
        (zmq.TCP_MAXRT, 10_000),
        (zmq.TCP_KEEPALIVE, 1),
        (zmq.TCP_KEEPALIVE_IDLE, 30),
        (zmq.TCP_KEEPALIVE_INTVL, 10),
        (zmq.TCP_KEEPALIVE_CNT, 3),
    ):
        socket.setsockopt(option, value)
    socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)


def _authenticated(identity: zmq.Frame) -> tuple[Role, str]:
    """The role and the host behind a frame, as our own doorman stated them during the handshake."""
    role = Role.from_label(str(identity["User-Id"]))
    assert role is not None, "the doorman lets in nobody without a role"
    return role, str(identity["Peer-Address"])


def _monitor_events(monitor: zmq.Socket[bytes]) -> list[tuple[int, int]]:
    """The events that have come, as (event, value)."""
    events: list[tuple[int, int]] = []
    while len(events) < DRAIN_LIMIT:
        try:
            head, _endpoint = monitor.recv_multipart(zmq.DONTWAIT)
        except zmq.Again:
            break
        event, value = _EVENT.unpack(head)
        events.append((event, value))
    return events


def _bind_error(listen: HostPort, error: zmq.ZMQError) -> BadAddress:
    if error.errno == zmq.EADDRINUSE:
        return AddressInUse(
            f"{listen} is in use by another process: stop it, or give another port (0: any free one)"
        )
    if error.errno == zmq.EADDRNOTAVAIL:
        return BadAddress(f"{listen} is no address of this machine")
    return BadAddress(f"{listen} cannot be bound: {error.strerror}")
