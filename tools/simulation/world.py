"""Virtual time: one heap of events for the whole cluster, and the steps that nodes take when theirs come up.

A step is one call into one process (start, receive or tick) followed by its effects, in order. The
checks run between the two, on the node that took the step; nothing else can have changed. Events at the same
instant happen in the order in which they were scheduled, so the heap never compares what they carry.

Bounds: a world may take ``max_steps`` steps, and a process whose deadline stays in the past spins: both
end the run as a ``Violation``, as does any exception that escapes from the code under test.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Protocol

from tools.simulation.chance import child_random
from tools.simulation.kinds import Fault
from tools.simulation.network import Datagram, Network
from tools.simulation.node import INBOX_MAX, Node, NodeState, Program
from tools.simulation.trace import Trace

__all__ = ["Codec", "ObjectCodec", "Violation", "World"]

MAX_STEPS = 2_000_000
MAX_OVERDUE_TICKS = 100
NOTICEABLE_LAG_S = 0.02


class Violation(Exception):
    """The code under test broke a promise."""


class Codec(Protocol):
    """Turns messages into payloads and back, as the wire does."""

    def encode(self, message: object, sender: Node) -> object:
        """The payload that carries ``message``."""

    def decode(self, payload: object) -> tuple[object, str]:
        """The message and its sender's name; raises on what it refuses."""

    def fingerprint(self, payload: object) -> bytes:
        """Bytes for the trace's hash, equal in every run."""

    def describe(self, payload: object) -> str:
        """A line for a reader."""


class ObjectCodec:
    """Passes messages as they are: for programs whose messages have no wire format."""

    def encode(self, message: object, sender: Node) -> object:
        """The message beside its sender's name."""
        return message, sender.name

    def decode(self, payload: object) -> tuple[object, str]:
        """What ``encode`` put in."""
        assert isinstance(payload, tuple)
        return payload[0], payload[1]

    def fingerprint(self, payload: object) -> bytes:
        """The message's repr; frozen dataclasses show every field."""
        return repr(payload).encode()

    def describe(self, payload: object) -> str:
        """The message's repr."""
        assert isinstance(payload, tuple)
        return repr(payload[0])


class _Event(IntEnum):
    DELIVER = 0
    WAKE = 1
    CALL = 2


class World:
    """All nodes, the network between them, and the time they share.

    Args:
        seed: decides everything that is random.
        network: carries what nodes send.
        trace: records what happens.
        codec: what the bytes on the wire would be.
        timer_jitter_s: a wake-up comes up to this late, as timers do.
    """

    def __init__(
        self,
        seed: int,
        network: Network,
        *,
        trace: Trace | None = None,
        codec: Codec | None = None,
        timer_jitter_s: float = 0.002,
        max_steps: int = MAX_STEPS,
    ) -> None:
        self.seed = seed
        self.now = 0.0
        self.steps = 0
        self.nodes: list[Node] = []
        self._created = 0
        self.network = network
        self.trace = trace or Trace()
        self.checks: list[Callable[[Node], None]] = []
        self._codec: Codec = codec or ObjectCodec()
        self._at_address: dict[str, Node] = {}
        self._heap: list[tuple[float, int, int, object, int]] = []
        self._scheduled = 0
        self._max_steps = max_steps
        self._timer_jitter_s = timer_jitter_s
        self._timers = child_random(seed, "timers")
        self._boots = child_random(seed, "boots")
        self._disks = child_random(seed, "disks")

    # -- nodes -------------------------------------------------------------------------------------------

    def add_node(self, name: str, address: str, program: Program) -> Node:
        """A new node, down; ``boot`` starts it."""
        node = Node(self._created, name, address, program, self._transmit)
        self._created += 1
        self.nodes.append(node)
        self._at_address[address] = node
        return node

    def boot(self, node: Node) -> None:
        """Start the node's process: a new life, a new clock, the old disk."""
        assert node.state is NodeState.DOWN, node
        node.boots += 1
        node.gone = False
        node.state = NodeState.RUNNING
        # A monotonic clock starts anywhere; only its progress means something.
        node.clock.offset_s = self._boots.uniform(0.0, 10_000.0) - node.clock.rate * self.now
        now = node.clock.read(self.now)
        self.trace.note(self.now, "boot", f"{node.name} at {node.address}, boot {node.boots}")
        node.process = node.program(node, now)
        self._step(node, node.process.start(now))

    def crash(self, node: Node, *, wipe: bool = False) -> None:
        """Kill the process at once; what it did not sync is lost, with ``wipe`` the whole disk is."""
        self.trace.note(self.now, "crash", f"{node.name}{' and its disk' if wipe else ''}")
        node.state = NodeState.DOWN
        node.process = None
        node.inbox.clear()
        node.wake_at = node.wake_due = math.inf
        node.torn_after = node.when_torn = None
        node.disk.crash(self._disks)
        if wipe:
            node.disk.wipe()

    def move(self, node: Node, address: str) -> None:
        """Give a node that is down another address for its next boot."""
        assert node.state is NodeState.DOWN, node
        del self._at_address[node.address]
        node.address = address
        self._at_address[address] = node

    def remove_node(self, node: Node) -> None:
        """Take a node that is down out of the world for ever."""
        assert node.state is NodeState.DOWN, node
        self.nodes.remove(node)
        del self._at_address[node.address]

    def pause(self, node: Node) -> None:
        """Take the processor away, as SIGSTOP does; the clock goes on and the socket fills."""
        assert node.state is NodeState.RUNNING, node
        self.trace.note(self.now, "pause", node.name)
        node.state = NodeState.PAUSED

    def resume(self, node: Node) -> None:
        """Let a paused process go on: its timers are late, and what arrived meanwhile is in its socket."""
        assert node.state is NodeState.PAUSED, node
        assert node.process is not None
        self.trace.note(self.now, "resume", node.name)
        node.state = NodeState.RUNNING
        now = node.clock.read(self.now)
        if now - node.wake_due > NOTICEABLE_LAG_S:
            node.process.lagged(now - node.wake_due, now)
        # What a loop does that slept: sometimes it looks at its timers first, sometimes at its socket.
        if self._timers.random() < 0.5:
            self._tick(node)
        waiting, node.inbox = node.inbox, type(node.inbox)()
        for datagram in waiting:
            if node.running:
                assert isinstance(datagram, Datagram)
                self._receive(node, datagram)
        if node.running:
            self._tick(node)

    # -- time --------------------------------------------------------------------------------------------

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Call ``action`` at the world time ``time`` (now, if that is past)."""
        self._push(max(time, self.now), _Event.CALL, action, 0)

    def run(self, until: float) -> None:
        """Let everything happen up to the world time ``until``; raises ``Violation``."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            time, _, kind, subject, boot = heapq.heappop(heap)
            self.now = time
            if kind == _Event.DELIVER:
                assert isinstance(subject, Datagram)
                self._deliver(subject)
            elif kind == _Event.WAKE:
                assert isinstance(subject, Node)
                # A later deadline, a crash or a pause has made this wake-up void.
                if subject.wake_at == time and subject.boots == boot and subject.running:
                    self._tick(subject)
            else:
                assert callable(subject)
                subject()
        self.now = max(self.now, until)

    def replay(self, count: int) -> None:
        """Deliver up to ``count`` old datagrams once more, now."""
        for datagram in self.network.replayed(self.now, count):
            node = self._at_address.get(datagram.target)
            if node is not None and node.running:
                self.network.fired[Fault.REPLAY] += 1
                self._push(self.now, _Event.DELIVER, datagram, 0)

    def inject(self, node: Node, effects: Iterable[object]) -> None:
        """Perform effects of a command that was given to the node's process from outside, as one step."""
        self._step(node, effects)

    # -- steps -------------------------------------------------------------------------------------------

    def _push(self, time: float, kind: _Event, subject: object, boot: int) -> None:
        self._scheduled += 1
        heapq.heappush(self._heap, (time, self._scheduled, kind, subject, boot))

    def _transmit(self, node: Node, address: str, message: object) -> None:
        payload = self._codec.encode(message, node)
        trace = self.trace
        trace.record(
            self.now,
            "send",
            b"%s %s " % (node.address.encode(), address.encode()) + self._codec.fingerprint(payload),
            (lambda: f"{node.name} to {address}: {self._codec.describe(payload)}")
            if trace.keep_lines
            else None,
        )
        datagram = Datagram(node.address, address, payload, self.now)
        arrivals = self.network.arrivals(datagram)
        if not arrivals and trace.keep_lines:
            trace.lines.append(f"{self.now:12.6f}  lost  {node.name} to {address}")
        for arrival in arrivals:
            self._push(arrival, _Event.DELIVER, datagram, 0)

    def _deliver(self, datagram: Datagram) -> None:
        node = self._at_address.get(datagram.target)
        if node is None or node.state is NodeState.DOWN:
            return
        if node.state is NodeState.RUNNING:
            self._receive(node, datagram)
        elif len(node.inbox) < INBOX_MAX:
            node.inbox.append(datagram)

    def _receive(self, node: Node, datagram: Datagram) -> None:
        assert node.process is not None
        try:
            message, sender = self._codec.decode(datagram.payload)
        except Exception as error:
            raise Violation(f"the wire refuses what {datagram.source} sent: {error!r}") from error
        self.trace.record(
            self.now,
            "receive",
            node.name.encode(),
            (lambda: f"{node.name} from {sender}: {message!r}") if self.trace.keep_lines else None,
        )
        self._step(node, node.process.receive(message, sender, node.clock.read(self.now)))

    def _tick(self, node: Node) -> None:
        assert node.process is not None
        now = node.clock.read(self.now)
        self.trace.record(self.now, "tick", node.name.encode())
        self._step(node, node.process.tick(now))
        node.overdue_ticks = node.overdue_ticks + 1 if node.wake_due <= now else 0
        if node.overdue_ticks > MAX_OVERDUE_TICKS:
            raise Violation(f"{node.name} spins: after {MAX_OVERDUE_TICKS} ticks its deadline is still past")

    def _step(self, node: Node, effects: Iterable[object]) -> None:
        """Check, perform what a call into the process returned, and arm its next wake-up.

        The checks come first: they see what the process has become also where a crash cuts its effects short.
        """
        self.steps += 1
        if self.steps > self._max_steps:
            raise Violation(f"the world did not come to an end within {self._max_steps} steps")
        for check in self.checks:
            check(node)
        for effect in effects:
            process = node.process
            if process is None:  # the crash came between two effects
                return
            process.perform(effect)
            if node.torn_after is not None:
                node.torn_after -= 1
                if node.torn_after < 0 and node.when_torn is not None:
                    node.when_torn()
        if node.process is not None:
            self._arm(node)

    def _arm(self, node: Node) -> None:
        assert node.process is not None
        due = node.process.next_deadline()
        if due == node.wake_due and node.wake_at > self.now:
            return
        node.wake_due = due
        if due == math.inf:
            node.wake_at = math.inf
            return
        at = max(node.clock.when(due), self.now) + self._timers.random() * self._timer_jitter_s
        node.wake_at = at
        self._push(at, _Event.WAKE, node, node.boots)

    def rearm(self, node: Node) -> None:
        """The node's clock was changed: find out anew when it is due."""
        node.wake_due = -math.inf
        self._arm(node)
