"""A few nodes' registers on a table, with disks that survive, and a network that does as it is told.

No randomness but the machines' own, which is seeded, and a clock that the test turns: the simulator in tools/
is for chance, this is for claims.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TypeVar

from membership.register import AcceptorId, Group, Place, Record
from membership.register_config import LOCAL_REGISTER, RegisterConfig
from membership.register_effects import Committed, RegisterEffect, RegisterEvent, Report, Save, SendTo
from membership.register_messages import RegisterMessage
from membership.registers import Registers
from membership.view import NodeId

KEY = "k"
Event = TypeVar("Event", bound=RegisterEvent)


def acceptor(number: int, disk: str = "d1") -> AcceptorId:
    """The acceptor of the number-th node."""
    return AcceptorId(NodeId(f"n{number}"), disk)


def members(*numbers: int) -> tuple[AcceptorId, ...]:
    """The acceptors of these nodes."""
    return tuple(acceptor(number) for number in numbers)


def append(token: str) -> Callable[[Record], bytes]:
    """The change that appends a token to the payload, once."""

    def change(record: Record) -> bytes:
        words = record.payload.decode().split()
        return record.payload if token in words else " ".join([*words, token]).encode()

    return change


def look(record: Record) -> bytes:
    """The change that changes nothing."""
    return record.payload


@dataclass
class Letter:
    """A message on its way."""

    source: NodeId
    to: NodeId
    message: RegisterMessage


@dataclass
class Host:
    """One node: its disk, which outlives its lives, and its present life."""

    number: int
    disk: str = "d1"
    saved: dict[str, bytes] = field(default_factory=dict)
    lives: int = 0
    registers: Registers | None = None
    events: list[RegisterEvent] = field(default_factory=list)

    def told(self, kind: type[Event]) -> list[Event]:
        """What was reported here, of one type."""
        return [event for event in self.events if isinstance(event, kind)]


class Bench:
    """Nodes n0, n1, … and everything between them.

    Args:
        count: how many nodes.
        config: of all.
        is_led: which keys have leaders.
        terminal: a payload that ends with this absorbs.
    """

    def __init__(
        self,
        count: int,
        *,
        config: RegisterConfig = LOCAL_REGISTER,
        is_led: Callable[[str], bool] = lambda _key: False,
        terminal: bytes = b"END",
    ) -> None:
        self.now = 100.0
        self.config = config
        self.hosts = [Host(number) for number in range(count)]
        self.letters: list[Letter] = []
        self.sent: list[Letter] = []
        self.lost: Callable[[Letter], bool] = lambda _letter: False
        self._is_led = is_led
        self._terminal = terminal
        for number in range(count):
            self.boot(number)

    def __getitem__(self, number: int) -> Registers:
        registers = self.hosts[number].registers
        assert registers is not None
        return registers

    # -- lives ------------------------------------------------------------------------------------------

    def boot(self, number: int) -> None:
        """Start a node on its disk."""
        host = self.hosts[number]
        host.lives += 1
        host.registers = Registers(
            me=acceptor(number, host.disk),
            life=host.lives,
            config=self.config,
            rng=random.Random(f"{number} {host.lives}"),
            absorbs=lambda _key, payload: payload.endswith(self._terminal),
            is_led=self._is_led,
            now=self.now,
            saved=host.saved,
        )

    def kill(self, number: int, *, wipe: bool = False) -> None:
        """End a node's life; with `wipe`, its disk is lost, and the next one has another name."""
        host = self.hosts[number]
        host.registers = None
        if wipe:
            host.saved = {}
            host.disk = f"d{host.lives + 1}"

    # -- doing ------------------------------------------------------------------------------------------

    def perform(self, number: int, effects: Sequence[RegisterEffect]) -> None:
        """Perform effects in order, as a shell does."""
        host = self.hosts[number]
        for effect in effects:
            match effect:
                case SendTo(to, message):
                    letter = Letter(NodeId(f"n{number}"), to, message)
                    self.sent.append(letter)
                    self.letters.append(letter)
                case Save(key, None):
                    host.saved.pop(key, None)
                case Save(key, bytes() as state):
                    host.saved[key] = state
                case Report(event):
                    host.events.append(event)

    def found(self, *numbers: int, key: str = KEY, payload: bytes = b"", by: int = 0) -> None:
        """Found a register at these nodes and wait until it exists."""
        record = Record(generation=0, epoch=0, members=members(*numbers), payload=payload)
        self.perform(by, self[by].found(key, record, self.now))
        self.settle()

    def introduce(self, number: int, *numbers: int, key: str = KEY) -> None:
        """Tell a node who keeps the key in its first epoch."""
        group = Group(key=key, place=Place(0, 0), members=members(*numbers))
        self.perform(number, self[number].learn(group, self.now))

    def propose(self, number: int, change: Callable[[Record], bytes], key: str = KEY) -> int:
        """Propose on a node; returns the proposal's number."""
        proposal, effects = self[number].propose(key, change, self.now)
        self.perform(number, effects)
        return proposal

    def log(self, number: int, key: str = KEY) -> str:
        """The payload, as a look from this node shows it."""
        return self.look(number, key).payload.decode()

    def look(self, number: int, key: str = KEY) -> Record:
        """What the register holds, as a look from this node shows."""
        proposal = self.propose(number, look, key)
        for _ in range(50):
            self.settle()
            for event in self.hosts[number].told(Committed):
                if (event.key, event.proposal) == (key, proposal):
                    return event.record
            self.advance(0.1)
        raise AssertionError("the look got no answer within five seconds")

    # -- network and time -------------------------------------------------------------------------------

    def deliver(self, letter: Letter) -> None:
        """Hand one letter over, if somebody is there."""
        number = int(letter.to.removeprefix("n"))
        registers = self.hosts[number].registers
        if registers is not None:
            self.perform(number, registers.receive(letter.message, letter.source, self.now))

    def settle(self) -> None:
        """Deliver, in order, until nothing is on its way; what `lost` names vanishes."""
        for _ in range(10_000):
            if not self.letters:
                return
            letter = self.letters.pop(0)
            if not self.lost(letter):
                self.deliver(letter)
        raise AssertionError("the nodes talk for ever")

    def advance(self, seconds: float) -> None:
        """Let time pass: tick who is due, deliver what is sent."""
        until = self.now + seconds
        for _ in range(100_000):
            self.settle()
            due = min((h.registers.next_deadline() for h in self.hosts if h.registers), default=inf)
            if due > until:
                break
            self.now = max(self.now, due)
            for host in self.hosts:
                if host.registers is not None and host.registers.next_deadline() <= self.now:
                    self.perform(host.number, host.registers.tick(self.now))
        else:
            raise AssertionError("somebody's deadline stays in the past")
        self.now = until


def to(*numbers: int) -> set[NodeId]:
    """The nodes of these numbers, as letters name them."""
    return {NodeId(f"n{number}") for number in numbers}


def lead(bench: Bench, number: int) -> None:
    """Have a node lead the register, and let a second pass."""
    bench.perform(number, bench[number].lead(KEY, bench.now))
    bench.advance(1.0)
