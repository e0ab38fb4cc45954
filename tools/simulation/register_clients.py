"""Clients of the simulated registers: they append tokens and look, wherever they get to, until it is done.

A client asks any node that is up, and goes to the leader if that node knows one; some pass the leader over,
and one that has found none for long proposes by itself, and so learns why. It knows a register by its
founder's handle, which it brings along. What takes too long it gives up: that may have happened or not.

An operation that was acknowledged is handed back to who judges it (`register`, `register_history`), with what
had been acknowledged before it began.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from membership.errors import UnknownRegister
from membership.register import AcceptorId, Change, Group, Place, Record
from membership.register_effects import Committed, QuorumLost
from tools.simulation.node import Node
from tools.simulation.register_history import CLOSING, LogHistory
from tools.simulation.register_host import is_led, log_of, payload_of, registers_of
from tools.simulation.world import World

__all__ = ["Clients", "Operation", "Register"]

PATIENCE_S = 4.0
DESPERATE_AFTER = 6  # attempts; then a client that finds no leader proposes by itself, and so learns why


@dataclass(slots=True, eq=False)
class Operation:
    """One operation of a client: an append of a token, or a look (None)."""

    name: str
    key: str
    token: str | None
    began: float
    acknowledged_before: dict[int, int]  # by generation
    at: Node | None = None  # the node to ask first; anyone where None
    attempts: int = 0
    done: bool = False
    then: Callable[[], None] = lambda: None


@dataclass(slots=True)
class Register:
    """What the world knows about one key."""

    key: str
    handle: Group | None = None  # the founder's
    latest: Group | None = None  # as gossip has it
    generation: int = -1  # the founder's last
    founding: Record | None = None
    begun: set[str] = field(default_factory=set)
    histories: dict[int, LogHistory] = field(default_factory=dict)
    groups: dict[Place, tuple[AcceptorId, ...]] = field(default_factory=dict)
    lost: QuorumLost | None = None  # the last report after healing

    def history(self, generation: int) -> LogHistory:
        """The history of one generation."""
        return self.histories.setdefault(generation, LogHistory(begun=self.begun))


class Clients:
    """So many clients, each with one operation at a time.

    Args:
        world: with the nodes.
        registers: the keys they use.
        draw: all their draws.
        think_s: the mean time between two operations of one.
        bypass: how often a client passes the leader over.
        closing: how often an append closes the log.

    Attributes:
        is_over: nobody begins anything any more, but for the last.
        last: the last operations, which are tried until they succeed.
    """

    def __init__(
        self,
        world: World,
        registers: Sequence[Register],
        draw: Random,
        *,
        think_s: float,
        bypass: float,
        closing: float,
    ) -> None:
        self.is_over = False
        self.last: list[Operation] = []
        self._world = world
        self._registers = registers
        self._draw = draw
        self._think_s = think_s
        self._bypass = bypass
        self._closing = closing
        self._pending: dict[tuple[str, int, str, int], Operation] = {}
        self._tokens = 0

    def begin(self, count: int) -> None:
        """Let them loose."""
        for client in range(count):
            self._client_later(f"c{client}")

    def begin_last(self, node: Node, register: Register) -> None:
        """Append or look once more, asking this node first."""
        operation = self._begin(f"last-{node.name}", register)
        operation.at = node
        self.last.append(operation)
        self._attempt(operation)

    def acknowledged(self, node: Node, event: Committed) -> Operation | None:
        """Whose operation it is that a node reports as chosen; None if nobody waits for it."""
        return self._pending.pop((node.name, node.boots, event.key, event.proposal), None)

    def _client_later(self, name: str) -> None:
        think_s = self._draw.expovariate(1.0 / self._think_s)
        self._world.at(self._world.now + think_s, lambda: self._client(name))

    def _client(self, name: str) -> None:
        """Begin an operation; the next follows when it is done, or has taken too long."""
        if self.is_over:
            return
        operation = self._begin(name, self._draw.choice(self._registers))
        operation.then = lambda: self._client_later(name)
        self._attempt(operation)

    def _attempt(self, operation: Operation) -> None:
        """Try an operation somewhere, and elsewhere if nothing comes of it."""
        if operation.done:
            return
        if self._world.now - operation.began > PATIENCE_S and operation not in self.last:
            operation.then()  # its outcome stays unknown
            return
        node = operation.at or self.some_node()
        if node is not None and node.running:
            operation.attempts += 1
            desperate = operation.attempts > DESPERATE_AFTER
            self._try(operation, node if desperate else self.leaders_node(node, operation.key))
        retry_s = self._draw.uniform(0.3, 1.5)
        self._world.at(self._world.now + retry_s, lambda: self._attempt(operation))

    def leaders_node(self, asked: Node, key: str) -> Node | None:
        """Where a client goes that has asked a node: to the leader, if the key has one and the node knows."""
        if not is_led(key) or self._draw.random() < self._bypass:
            return asked
        leader = registers_of(asked).leader(key)
        group = registers_of(asked).group(key)
        if leader is None and group is not None:
            leader = self._draw.choice(group.members).node
        node = next((node for node in self._world.nodes if node.name == leader), None)
        if node is None or not node.running:
            return None
        proposer = registers_of(node).proposers.get(key)
        return node if proposer is not None and proposer.leads else None

    def _begin(self, name: str, register: Register) -> Operation:
        token = None
        if self._draw.random() < 0.6:
            self._tokens += 1
            closing = self._draw.random() < self._closing
            token = f"{CLOSING if closing else ''}{name}.{self._tokens}"
            register.begun.add(token)
        before = {generation: h.acknowledged for generation, h in register.histories.items()}
        return Operation(name, register.key, token, self._world.now, before)

    def _try(self, operation: Operation, node: Node | None) -> None:
        if node is None or not node.running:
            return
        registers = registers_of(node)
        now = node.clock.read(self._world.now)
        register = next(register for register in self._registers if register.key == operation.key)
        if register.handle is not None:
            self._world.inject(node, registers.learn(register.handle, now))
        if not node.running:
            return
        try:
            number, effects = registers.propose(operation.key, _change(operation.token), now)
        except UnknownRegister:
            return
        self._pending[node.name, node.boots, operation.key, number] = operation
        self._world.trace.note(self._world.now, "try", f"{operation.name} {operation.token} on {node.name}")
        self._world.inject(node, effects)

    def some_node(self) -> Node | None:
        """Any node that is up; clients ask it, and so does everybody else in this world."""
        running = [node for node in self._world.nodes if node.running]
        return self._draw.choice(running) if running else None


def _change(token: str | None) -> Change:
    def change(record: Record) -> bytes:
        log = log_of(record.payload)
        if token is None or token in log:
            return record.payload
        return payload_of((*log, token))

    return change
