"""Which copies of outputs must be made, in what order, and by whom.

Where places and holdings differ (`mapreduce.keeper`), a place is *wanted* to hold something.  Somebody who
holds it is ordered to push it there.  The outputs with the fewest copies come first; of those who can give a
copy the one with the least to do gives it; a bounded number of orders is under way at a time, so that
repair never starves the job.  What no single peer holds together is ordered partition by partition.

Orders and answers may be lost.  An order is said again until it is answered (its holder knows its number),
and given up after a time limit, when another holder may be better.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from math import inf

from mapreduce.config import JobsConfig
from mapreduce.holdings import WHOLE, Coverage, Holdings, bits_of, tasks_in
from mapreduce.messages import CopyOrder, most_attempts
from mapreduce.placement import Rows
from mapreduce.stages import Stage
from membership.ring import Ring
from membership.view import NodeId

__all__ = ["Copies", "Kept"]


@dataclass(slots=True)
class Kept:
    """One stage whose outputs are needed.

    Attributes:
        items: how many partitions, or parts.
        need: the tasks whose winners have an output.
        attempts: of the winners, by task; 0 where there is none.
        reduced: partitions whose parts are committed: nobody needs their runs any more.
    """

    stage: Stage
    items: int
    rows: Rows
    holdings: Holdings
    need: int
    attempts: list[int]
    reduced: frozenset[int] = frozenset()

    @property
    def gone(self) -> int:
        """The tasks of whose outputs nobody holds all that is needed."""
        if not self.need:
            return 0
        if not self.stage.has_shuffle:
            return self.need & ~self.holdings.somewhere(0)
        lost = 0
        for partition in range(self.items):
            if partition not in self.reduced:
                lost |= self.need & ~self.holdings.somewhere(partition)
        return lost


@dataclass(slots=True)
class _Copy:
    """An order under way; `said_at` is when it was last given."""

    source: NodeId
    coverage: Coverage
    tasks: int
    order: CopyOrder
    sent_at: float
    said_at: float


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A copy that should be made: `copies` is how many there are of the rarest of it."""

    copies: int
    kept: Kept
    to: NodeId
    coverage: Coverage
    tasks: int


class Copies:
    """The copy orders of one job.

    Args:
        job: its id.
        replicas: R.
        config: see there.
    """

    def __init__(self, job: str, replicas: int, config: JobsConfig) -> None:
        self.look_at = inf
        self.is_dirty = True
        self._job = job
        self._replicas = replicas
        self._config = config
        self._numbers = 0
        self._under_way: dict[int, _Copy] = {}
        self._rest_until: dict[tuple[int, NodeId], float] = {}

    def orders(
        self, stages: Iterable[Kept], ring: Ring, present: frozenset[NodeId], now: float
    ) -> list[tuple[NodeId, CopyOrder]]:
        """Choose the copies that shall be made next: (who shall push, the order without its ballot).

        Args:
            stages: whose outputs are needed.
            ring: of those who take copies, and stay.
            present: who is here at all, and so can give a copy.
        """
        if not self.is_dirty and now < self.look_at:
            return []
        self.is_dirty = False
        for number, copy in list(self._under_way.items()):
            if now - copy.sent_at > self._config.copy_timeout_s:
                del self._under_way[number]
        # Whatever is left undone (no room, no source, a place that rests) is looked at again.
        self.look_at = now + self._config.retry_s if self._under_way else inf
        self._rest_until = {key: until for key, until in self._rest_until.items() if until > now}
        given: list[tuple[NodeId, CopyOrder]] = []
        wanted = [one for kept in stages for one in self._wanted(kept, ring)]
        for one in sorted(wanted, key=lambda w: (w.copies, w.kept.stage.index, w.to)):
            self.look_at = now + self._config.retry_s
            if (one.kept.stage.index, one.to) not in self._rest_until:
                given += self._order(one, present, now)
        return given

    def unanswered(self, now: float) -> list[tuple[NodeId, CopyOrder]]:
        """Orders that have not been answered for a while: they, or their answers, may have been lost."""
        again = [copy for copy in self._under_way.values() if now - copy.said_at >= self._config.retry_s]
        for copy in again:
            copy.said_at = now
        return [(copy.source, copy.order) for copy in again]

    def answered(self, number: int, reason: str, kept: Kept | None, now: float) -> str:
        """An order was answered; gives what was done, in words, "" where nothing was.

        Args:
            reason: why it could not be done; "" if it was.
            kept: the stage of the order, if its outputs are still needed.
        """
        copy = self._under_way.pop(number, None)
        if copy is None:
            return ""
        self.is_dirty = True
        order = copy.order
        if reason or kept is None:
            self._rest_until[order.stage, order.to] = now + self._config.retry_s
            return ""
        # A winner that was lost and replaced meanwhile is another output.
        same = [t for t, a in zip(order.tasks, order.attempts, strict=True) if kept.attempts[t] == a]
        kept.holdings.add(order.to, copy.coverage, bits_of(same))
        return f"{len(same)} outputs from {copy.source}"

    def stage_of(self, number: int) -> int:
        """The stage of an order that is under way, -1 for any other."""
        copy = self._under_way.get(number)
        return copy.order.stage if copy is not None else -1

    def depends_on(self, node: NodeId, stages: Iterable[Kept], ring: Ring) -> bool:
        """Whether copies are still to be made of what a node holds."""
        if any(copy.source == node for copy in self._under_way.values()):
            return True
        return any(
            wanted.tasks & kept.holdings.held_all(node, wanted.coverage)
            for kept in stages
            for wanted in self._wanted(kept, ring)
        )

    def is_short(self, kept: Kept, ring: Ring) -> bool:
        """Whether there are copies to be made of a stage's outputs, or on their way."""
        ordered = any(copy.order.stage == kept.stage.index for copy in self._under_way.values())
        return ordered or bool(self._wanted(kept, ring))

    def forget(self, node: NodeId) -> None:
        """A node is gone: orders from or to it will not be answered."""
        self._under_way = {
            number: copy
            for number, copy in self._under_way.items()
            if node not in (copy.source, copy.order.to)
        }

    def forget_stages(self, but: Iterable[int]) -> None:
        """Only the outputs of these stages are needed any more."""
        stages = frozenset(but)
        self._under_way = {n: copy for n, copy in self._under_way.items() if copy.order.stage in stages}

    # -- what is wanted ------------------------------------------------------------------------------------

    def _wanted(self, kept: Kept, ring: Ring) -> list[_Wanted]:
        if not kept.need:
            return []
        return self._wanted_runs(kept) if kept.stage.has_shuffle else self._wanted_parts(kept, ring)

    def _wanted_runs(self, kept: Kept) -> list[_Wanted]:
        """What the places of partitions lack, by place and by what is lacking."""
        wanted = []
        held = kept.holdings
        for node in kept.rows.nodes:
            duty = tuple([p for p in kept.rows.duty(node, kept.items) if p not in kept.reduced])
            if not duty or not kept.need & ~held.held_all(node, held.coverage(duty)):
                continue
            lacking: dict[int, list[int]] = {}
            for partition in duty:
                lacking.setdefault(kept.need & ~held.held(node, partition), []).append(partition)
            for tasks, partitions in lacking.items():
                coverage = held.coverage(tuple(partitions))
                left = tasks & ~self._ordered(kept, node, coverage)
                if left:
                    first = left & -left
                    rarest = min(held.copies(partition, first) for partition in partitions)
                    wanted.append(_Wanted(rarest, kept, node, coverage, left))
        return wanted

    def _wanted_parts(self, kept: Kept, ring: Ring) -> list[_Wanted]:
        """Parts with fewer copies than there could be, by place."""
        target = min(self._replicas, len(ring))
        levels = [kept.need] + [0] * target  # levels[k]: the tasks with at least k copies at peers that stay
        for node in kept.holdings.nodes:
            if node in ring:
                bits = kept.holdings.held_all(node, WHOLE)
                for level in range(target, 0, -1):
                    levels[level] |= levels[level - 1] & bits
        wanted: dict[NodeId, int] = {}
        for task in tasks_in(kept.need & ~levels[target]):
            short = target - sum(levels[level] >> task & 1 for level in range(1, target + 1))
            row = kept.rows.of(task)
            lacking = [node for node in row if not kept.holdings.held_all(node, WHOLE) >> task & 1]
            for node in lacking[:short]:
                wanted[node] = wanted.get(node, 0) | 1 << task
        return [
            _Wanted(target - 1, kept, node, WHOLE, left)
            for node, tasks in wanted.items()
            if (left := tasks & ~self._ordered(kept, node, WHOLE))
        ]

    def _ordered(self, kept: Kept, to: NodeId, coverage: Coverage) -> int:
        """The tasks of which a place is about to get some of what it lacks."""
        bits = 0
        for copy in self._under_way.values():
            if copy.order.stage == kept.stage.index and copy.order.to == to and copy.coverage.meets(coverage):
                bits |= copy.tasks
        return bits

    # -- who gives it --------------------------------------------------------------------------------------

    def _order(
        self, wanted: _Wanted, present: frozenset[NodeId], now: float
    ) -> list[tuple[NodeId, CopyOrder]]:
        """Share a wanted copy out among those who can give it."""
        held = wanted.kept.holdings
        sources = self._idle_first([n for n in held.nodes if n != wanted.to and n in present])
        given: list[tuple[NodeId, CopyOrder]] = []
        pieces = [wanted.coverage]
        if len(wanted.coverage.partitions) > 1:
            pieces += [held.coverage((partition,)) for partition in wanted.coverage.partitions]
        left = wanted.tasks
        for coverage in pieces:
            most = most_attempts(self._config.copy_batch, len(coverage.partitions))
            for source in sources:
                can_give = left & held.held_all(source, coverage)
                tasks = list(islice(tasks_in(can_give), most))
                if tasks and len(self._under_way) < self._config.copies_in_flight:
                    given.append((source, self._begin(wanted, source, coverage, tasks, now)))
                    left &= ~bits_of(tasks)
        return given

    def _idle_first(self, nodes: Sequence[NodeId]) -> list[NodeId]:
        busy: dict[NodeId, int] = {}
        for copy in self._under_way.values():
            busy[copy.source] = busy.get(copy.source, 0) + 1
        return sorted(nodes, key=lambda node: (busy.get(node, 0), node))

    def _begin(
        self, wanted: _Wanted, source: NodeId, coverage: Coverage, tasks: Sequence[int], now: float
    ) -> CopyOrder:
        self._numbers += 1
        order = CopyOrder(
            job=self._job,
            ballot=0,
            number=self._numbers,
            stage=wanted.kept.stage.index,
            to=wanted.to,
            partitions=coverage.partitions,
            tasks=tuple(tasks),
            attempts=tuple([wanted.kept.attempts[task] for task in tasks]),
        )
        self._under_way[order.number] = _Copy(source, coverage, bits_of(tasks), order, now, now)
        return order
