"""The attempts in a worker's hands, of the stage that a job is in.

phase      event                                        next phase
QUEUED     its input lies here, and a slot is free      RUNNING
QUEUED     asked back                                   (gone)
RUNNING    done                                         PUSHING
RUNNING    failed                                       (gone, and reported until that is settled)
RUNNING    not begun after all: its child died before   QUEUED
PUSHING    every place has acknowledged                 FINISHED, and reported until that is settled
FINISHED   another leader, who knows of other places    PUSHING
FINISHED   settled                                      (gone)
any        revoked by force, another stage, the end     (gone)

What a place has acknowledged is remembered by partition, so when places move only what is new is pushed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from mapreduce.effects import TaskOutput
from mapreduce.messages import Phase, Piece
from membership.view import NodeId

__all__ = ["WHOLE", "Hands", "Held", "Partitions"]

Partitions = tuple[int, ...]
WHOLE: Partitions = ()


@dataclass(slots=True)
class Held:
    """One attempt.

    Attributes:
        number: how often its task was tried.
        is_here: what it reads lies here.
        acked: by place, what it has acknowledged.
        owed: by place, what it has yet to acknowledge; a push of it waits or is under way.
        version: of the places that have acknowledged it all, once it is FINISHED.
        reported_at: when it was last reported.
    """

    task: int
    attempt: int
    number: int
    piece: Piece | None
    is_here: bool = True
    phase: Phase = Phase.QUEUED
    output: TaskOutput | None = None
    acked: dict[NodeId, list[Partitions]] = field(default_factory=dict)
    owed: dict[NodeId, Partitions] = field(default_factory=dict)
    sent_bytes: int = 0
    version: int = 0
    reported_at: float = -1e18

    def acknowledge(self, node: NodeId, partitions: Partitions) -> None:
        """A place holds these partitions."""
        self.acked.setdefault(node, []).append(partitions)
        owed = self.owed.get(node)
        if owed is None:
            return
        left = self.lacks(node, owed)
        if left is None:
            del self.owed[node]
        else:
            self.owed[node] = left

    def lacks(self, node: NodeId, wanted: Partitions) -> Partitions | None:
        """What of the wanted partitions a place has not acknowledged; None: nothing."""
        acked = self.acked.get(node)
        if not acked:
            return wanted
        if WHOLE in acked or wanted in acked:
            return None
        if wanted == WHOLE:
            return WHOLE
        known = set().union(*acked)
        left = tuple([partition for partition in wanted if partition not in known])
        return left or None


class Hands:
    """All attempts in hand, by number, and how many there are of each phase.

    Attributes:
        attempts: by number.
        queue: those that could begin now, the next one first; some may be gone by then.
        queued: how many have not begun, whether their input lies here or not.
        running, pushing: how many are in these phases.
    """

    def __init__(self) -> None:
        self.attempts: dict[int, Held] = {}
        self.queue: deque[int] = deque()
        self.queued = 0
        self.running = 0
        self.pushing = 0

    def take(self, held: Held) -> None:
        """An attempt was granted."""
        self.attempts[held.attempt] = held
        self.queued += 1
        if held.is_here:
            self.queue.append(held.attempt)

    def fetched(self, attempt: int) -> None:
        """What an attempt reads lies here now."""
        held = self.attempts.get(attempt)
        if held is not None and not held.is_here:
            held.is_here = True
            self.queue.append(attempt)

    def begin_next(self) -> Held | None:
        """The attempt that has waited longest runs now; None when none is ready."""
        while self.queue:
            held = self.attempts.get(self.queue.popleft())
            if held is None or held.phase is not Phase.QUEUED or not held.is_here:
                continue
            held.phase = Phase.RUNNING
            self.queued -= 1
            self.running += 1
            return held
        return None

    def not_begun(self, attempt: int) -> None:
        """An attempt was not begun after all: it waits again, before all others."""
        held = self.attempts.get(attempt)
        if held is not None and held.phase is Phase.RUNNING:
            held.phase = Phase.QUEUED
            self.running -= 1
            self.queued += 1
            self.queue.appendleft(attempt)

    def push(self, held: Held) -> None:
        """A running attempt is done, or a finished one has to lie at other places as well."""
        if held.phase is Phase.RUNNING:
            self.running -= 1
        held.phase = Phase.PUSHING
        self.pushing += 1

    def finish(self, held: Held) -> None:
        """Every place has acknowledged its output."""
        if held.phase is Phase.PUSHING:
            self.pushing -= 1
        held.phase = Phase.FINISHED

    def drop(self, held: Held) -> None:
        """Let go of an attempt, in whatever phase."""
        del self.attempts[held.attempt]
        match held.phase:
            case Phase.QUEUED:
                self.queued -= 1
            case Phase.RUNNING:
                self.running -= 1
            case Phase.PUSHING:
                self.pushing -= 1
            case Phase.FINISHED:
                pass

    def clear(self) -> None:
        """Let go of all."""
        self.attempts.clear()
        self.queue.clear()
        self.running = self.queued = self.pushing = 0
