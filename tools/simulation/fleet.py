"""Thousands of Swims in one thread: the lean loop for measuring, not for breaking.

Differences from ``World``, all for the sake of speed: messages are passed as objects, links lose a share
of them and do nothing else, no trace is kept, and all machines start from one shared table of members, so
that ten thousand of them need the memory of one table and their differences. Bytes are counted by
encoding one message in ``SAMPLE_EVERY`` with the real wire format and taking it for the others.

A sick node's messages, in and out, are held back most of the time and let go in bursts, while its timers run:
the anomaly of Lifeguard's experiments (section V, "blocked immediately before sending or after receiving a
message").
"""

from __future__ import annotations

import gc
import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from membership.config import SwimConfig
from membership.effects import Announce, Effect, Event, Send
from membership.messages import Message
from membership.swim import Swim
from membership.table import MemberTable
from membership.view import Member, NodeId
from p2p.protocol import wire_format
from p2p.wire import Envelope
from tools.simulation.chance import child_random

__all__ = ["Fleet", "FleetConfig", "Traffic"]

SAMPLE_EVERY = 101  # a prime: it does not keep step with rounds


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetConfig:
    """One cluster to measure: its size, its links, and how many of its nodes are sick.

    ``loss`` is the share of messages lost. A sick node is blocked for ``blocked_s``, then runs for
    ``running_s``, and so on. ``told_of_lag`` is whether nodes notice their own lag.
    """

    nodes: int
    seed: int
    swim: SwimConfig
    loss: float = 0.0
    sick_share: float = 0.0
    blocked_s: float = 20.0
    running_s: float = 1.0
    latency_s: float = 0.0005


@dataclass(slots=True)
class Traffic:
    """What was sent: messages by type, and a sample of their frames."""

    messages: Counter[type] = field(default_factory=Counter)
    sampled: Counter[type] = field(default_factory=Counter)
    sampled_bytes: Counter[type] = field(default_factory=Counter)

    @property
    def bytes(self) -> float:
        """All bytes, each type by the mean of its sample."""
        return sum(
            count * self.sampled_bytes[kind] / self.sampled[kind] for kind, count in self.messages.items()
        )


Observer = Callable[[float, int, Event, NodeId | None], None]


class Fleet:
    """A cluster whose nodes all know each other from the start.

    Args:
        config: what to simulate.
        observe: called with (time, node's index, event, sender of the message being handled or None) for
            every event that a node announces.
    """

    def __init__(
        self, config: FleetConfig, observe: Callable[[float, int, Event, NodeId | None], None]
    ) -> None:
        self.config = config
        self.now = 0.0
        self.traffic = Traffic()
        self.events = 0
        self.sent = [0] * config.nodes
        self.hearing: NodeId | None = None  # whose message is being handled, while an event is observed
        self._observe = observe
        members = [
            Member(NodeId(f"n{index}"), f"10.0.0.1:{index}", session=1) for index in range(config.nodes)
        ]
        table = MemberTable(members)
        self.swims: list[Swim | None] = [
            Swim(
                me=member,
                config=config.swim,
                rng=child_random(config.seed, "swim", member.id),
                known=table,
            )
            for member in members
        ]
        self._index_at = {member.address: index for index, member in enumerate(members)}
        self._ids = [member.id for member in members]
        draw = child_random(config.seed, "fleet")
        self._random = draw.random
        self.sick = frozenset(draw.sample(range(config.nodes), round(config.sick_share * config.nodes)))
        cycle_s = config.blocked_s + config.running_s
        self._phase = {index: draw.random() * cycle_s for index in sorted(self.sick)}
        self._wire = wire_format()
        # (time, order, node, sender, message); a timer has no message.
        self._heap: list[tuple[float, int, int, NodeId, Message | None]] = []
        self._order = 0
        self._due = [math.inf] * config.nodes

    def start(self) -> None:
        """Start every node within the first probe period."""
        period_s = self.config.swim.probe_period_s
        for index, swim in enumerate(self.swims):
            assert swim is not None
            # All started in the same instant would probe in the same instant for ever.
            began = self._random() * period_s
            self._perform(index, swim.start(began), began)

    def kill(self, index: int) -> None:
        """End a node at once and without a word."""
        self.swims[index] = None

    def command(self, index: int, effects: Iterable[Effect]) -> None:
        """Perform what a command to a node's machine returned."""
        self.hearing = None
        self._perform(index, effects, self.now)

    def run(self, until: float) -> None:
        """Let everything happen up to ``until``."""
        heap, pop, swims, due = self._heap, heapq.heappop, self.swims, self._due
        collecting = gc.isenabled()
        gc.disable()  # no cycles are made here, and each collection would walk every node's tables
        try:
            while heap and heap[0][0] <= until:
                now, _, index, sender, message = pop(heap)
                swim = swims[index]
                if swim is None or (message is None and due[index] != now):
                    continue
                self.now = now
                self.events += 1
                if message is None:
                    self.hearing = None
                    due[index] = math.nan  # used up: the same deadline may be asked for again
                    self._perform(index, swim.tick(now), now)
                else:
                    self.hearing = sender
                    self._perform(index, swim.receive(message, sender, now), now)
        finally:
            if collecting:
                gc.enable()
        self.now = until

    def _perform(self, index: int, effects: Iterable[Effect], now: float) -> None:
        config, traffic, sick = self.config, self.traffic, self.sick
        for effect in effects:
            if type(effect) is Send:
                kind = type(effect.message)
                traffic.messages[kind] += 1
                self.sent[index] += 1
                if traffic.messages[kind] % SAMPLE_EVERY == 1:
                    self._sample(index, effect.message)
                if config.loss and self._random() < config.loss:
                    continue
                target = self._index_at.get(effect.to_address)
                if target is not None:
                    self._order += 1
                    arrival = now + config.latency_s * (0.5 + self._random())
                    if sick:
                        arrival = self._released(target, self._released(index, arrival))
                    heapq.heappush(
                        self._heap, (arrival, self._order, target, self._ids[index], effect.message)
                    )
            elif type(effect) is Announce:
                self._observe(now, index, effect.event, self.hearing)
        swim = self.swims[index]
        if swim is not None:
            deadline = swim.next_deadline()
            if deadline != self._due[index]:
                self._arm(index, deadline)

    def _arm(self, index: int, deadline: float) -> None:
        self._due[index] = deadline
        if deadline != math.inf:
            self._order += 1
            heapq.heappush(self._heap, (deadline, self._order, index, self._ids[index], None))

    def _released(self, index: int, now: float) -> float:
        """The time, now or later, at which a node's messages pass."""
        if index not in self.sick:
            return now
        config = self.config
        into_cycle_s = (now + self._phase[index]) % (config.blocked_s + config.running_s)
        return now + max(0.0, config.blocked_s - into_cycle_s)

    def _sample(self, index: int, message: Message) -> None:
        frame = self._wire.encode(
            Envelope(
                cluster="simulated",
                ring_digest=bytes(16),
                sender=self._ids[index],
                incarnation=1,
                message=message,
            )
        )
        self.traffic.sampled[type(message)] += 1
        self.traffic.sampled_bytes[type(message)] += len(frame)
