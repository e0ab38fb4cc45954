"""Keeps a job's outputs: who shall hold them, who does, which copies must be made, what is gone.

Theory of operation
-------------------
For every stage whose outputs are still needed the keeper has the rows of places (`mapreduce.placement`) and
the holdings (`mapreduce.holdings`).  Rows are *mended* when members come and go.  Places and holdings differ
after that, and from the difference follow

* *copies*: what a place shall hold and does not is pushed to it by somebody who does.  The outputs with the
  fewest copies left come first; a bounded number of orders is under way at a time, so repair never starves
  the job;
* *losses*: what nobody holds any more is missed, and in the end given up (`mapreduce.losses`): then its task
  runs again.

A version counts the sets of rows that workers were told of.  A worker reports which version it has
satisfied, and from that follows who holds what, without a list.  A place that was forgotten since, because
another process stands behind its name, may have lost what it had acknowledged before: of the versions until
then no report counts for it, however late it comes.

Map outputs are held by partition: a place shall hold *all* winners of its partitions, or it cannot reduce
them.  Parts are held whole, by any R peers (see `mapreduce.placement.output_places`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mapreduce.changes import Change, Lost, LostTask, Place
from mapreduce.config import JobsConfig
from mapreduce.copies import Copies, Kept
from mapreduce.holdings import WHOLE, Coverage, Holdings, bits_of, tasks_in
from mapreduce.messages import CopyOrder, HeldGroup
from mapreduce.placement import Row, Rows, holders_ring, mend_rows, output_places
from mapreduce.record import JobRecord
from mapreduce.stages import StageGraph
from membership.ring import Ring
from membership.view import NodeId, View

__all__ = ["Keeper"]


@dataclass(slots=True)
class _Version:
    """Rows that workers were told of; `duties` are who holds what of an output that satisfies them.

    Of those who are in doubt it is not known: they were forgotten since.
    """

    stage: int
    rows: Rows
    duties: tuple[tuple[NodeId, Coverage], ...]
    in_doubt: set[NodeId] = field(default_factory=set)


class Keeper:
    """Keeps the outputs of one job, for its leader.

    Args:
        graph: the job's stages.
        job: its id.
        view: membership's.
        config: see there.
    """

    def __init__(self, graph: StageGraph, job: str, view: View, config: JobsConfig) -> None:
        self.version = 0
        self.generation = 0
        self._graph = graph
        self._job = job
        self._ring: Ring = holders_ring(view)
        self._present = frozenset(member.id for member in view.ring_members)
        self._kept: dict[int, Kept] = {}
        self._versions: dict[int, _Version] = {}
        self._copies = Copies(job, graph.plan.replicas, config)
        self._moved: dict[int, dict[int, Row]] = {}
        self._record: JobRecord | None = None
        self._gone_generation = -1
        self._gone_outputs: frozenset[tuple[int, int]] = frozenset()

    # -- following the record ----------------------------------------------------------------------------

    def follow(self, record: JobRecord) -> None:
        """Keep what the record says is needed, and nothing else; also the first call."""
        for stage in self._graph.stages[: len(record.stages)]:
            opened = record.stages[stage.index]
            needed = not opened.is_dropped and self._graph.is_needed(record, stage)
            kept = self._kept.get(stage.index)
            if not needed:
                self._kept.pop(stage.index, None)
            elif kept is None:
                attempts = [winner.attempt if winner else 0 for winner in opened.winners]
                need = bits_of(t for t, w in enumerate(opened.winners) if w is not None and not w.is_empty)
                items = opened.partitions if stage.has_shuffle else opened.tasks
                rows = Rows(tuple(record.places(stage.index)))
                kept = self._kept[stage.index] = Kept(stage, items, rows, Holdings(), need, attempts)
                self._mend(stage.index)  # members may have come or gone since its places were drawn
                self._copies.is_dirty = True
            if needed and kept is not None and stage.has_shuffle and stage.index + 1 < len(record.stages):
                done = enumerate(record.stages[stage.index + 1].winners)
                kept.reduced = frozenset(partition for partition, winner in done if winner is not None)
        self._record = record
        if self._gone_outputs:
            self._gone_generation = -1  # what is reduced meanwhile is not needed any more
        self._prune()

    def _prune(self) -> None:
        """Forget orders and moves of stages that are not kept any more."""
        self._copies.forget_stages(self._kept)
        self._moved = {stage: rows for stage, rows in self._moved.items() if stage in self._kept}

    def lost(self, stage: int, tasks: Iterable[int]) -> None:
        """The record has taken these winners back."""
        kept = self._kept.get(stage)
        if kept is None:
            return
        bits = bits_of(tasks)
        kept.need &= ~bits
        kept.holdings.forget_tasks(bits)
        for task in tasks_in(bits):
            kept.attempts[task] = 0
        self._changed()

    def committed(self, stage: int, task: int, attempt: int, *, is_empty: bool) -> None:
        """The record has this winner; who holds it was said before, by `finished`."""
        kept = self._kept.get(stage)
        if kept is not None:
            kept.attempts[task] = attempt
            if not is_empty:
                kept.need |= 1 << task

    # -- who holds what ------------------------------------------------------------------------------------

    def finished(self, stage: int, task: int, version: int, worker: NodeId) -> tuple[NodeId, ...]:
        """An attempt that is to be committed lies at the places of a version; gives those who are here.

        Nobody, and nothing counts, where part of it lay only at places that are gone or in doubt: its worker
        has it still, and says so again of the next version.
        """
        kept, said = self._kept.get(stage), self._versions.get(version)
        if kept is None or said is None or said.stage != stage:
            return ()
        duties = said.duties
        if not kept.stage.has_shuffle:
            duties = tuple([(node, WHOLE) for node in self.output_places(said.rows.of(task), worker)])
        sure = [one for one in duties if one[0] in self._present and one[0] not in said.in_doubt]
        if len(sure) < len(duties) and not _cover(sure, kept.items if kept.stage.has_shuffle else 1):
            return ()
        kept.holdings.forget_tasks(1 << task)
        for node, coverage in sure:
            kept.holdings.add(node, coverage, 1 << task)
        if version != self.version or said.in_doubt:
            self._changed()
        return tuple([node for node, _ in sure])

    def output_places(self, row: Row, runner: NodeId) -> Row:
        """The places of a part that a node has computed; its worker finds the same."""
        return output_places(row, runner, self._graph.plan.replicas, runner_holds=runner in row or not row)

    def inventory(self, node: NodeId, groups: Sequence[HeldGroup]) -> None:
        """A node says what it holds; only outputs of winners count."""
        for group in groups:
            kept = self._kept.get(group.stage)
            if kept is None:
                continue
            known = [
                task
                for task, attempt in zip(group.tasks, group.attempts, strict=False)
                if task < len(kept.attempts) and kept.attempts[task] == attempt
            ]
            kept.holdings.add(node, kept.holdings.coverage(group.partitions), bits_of(known))
        self._changed()

    def missing(self, node: NodeId, stage: int, tasks: Sequence[int]) -> None:
        """A node does not hold these outputs, or they are damaged."""
        kept = self._kept.get(stage)
        if kept is not None:
            kept.holdings.remove(node, bits_of(tasks))
            self._changed()

    def forget(self, node: NodeId) -> None:
        """Nothing is known of what a node holds: it is gone, or another process stands in its place.

        Only a new version says anything of it again.
        """
        for kept in self._kept.values():
            kept.holdings.forget_node(node)
        for said in self._versions.values():
            said.in_doubt.add(node)
        self._copies.forget(node)
        self._changed()

    def doubts(self, node: NodeId) -> bool:
        """Whether a node was forgotten since the present version was made."""
        said = self._versions.get(self.version)
        return said is not None and node in said.in_doubt

    def holders(self, stage: int, task: int) -> tuple[NodeId, ...]:
        """Who holds a part, those first that its row names."""
        kept = self._kept.get(stage)
        if kept is None:
            return ()
        row = kept.rows.of(task)
        holding = [n for n in kept.holdings.nodes if kept.holdings.held_all(n, WHOLE) >> task & 1]
        return tuple(sorted(holding, key=lambda n: (row.index(n) if n in row else len(row), n)))

    def is_held(self, stage: int, task: int) -> bool:
        """Whether every partition of an output, or the whole part, lies somewhere."""
        kept = self._kept.get(stage)
        if kept is None:
            return False
        partitions = range(kept.items) if kept.stage.has_shuffle else (0,)
        return all(kept.holdings.somewhere(partition) >> task & 1 for partition in partitions)

    def can_reduce(self, stage: int, partition: int, node: NodeId) -> bool:
        """Whether a node holds all winners of a map stage for a partition."""
        kept = self._kept.get(stage)
        if kept is None:
            return False
        return not kept.need & ~kept.holdings.held(node, partition)

    def reducers(self, stage: int, partition: int) -> tuple[NodeId, ...]:
        """Who can reduce a partition, in the order of its row, then anybody else."""
        kept = self._kept.get(stage)
        if kept is None:
            return ()
        row = kept.rows.of(partition)
        if not kept.need:  # nothing to read: the row serves as well as anybody
            return tuple([node for node in row if node in self._present])
        others = [node for node in kept.holdings.nodes if node not in row]
        return tuple([node for node in (*row, *others) if self.can_reduce(stage, partition, node)])

    # -- places ------------------------------------------------------------------------------------------

    def rows(self, stage: int) -> Rows:
        """The rows of a stage, as mended."""
        kept = self._kept.get(stage)
        return kept.rows if kept is not None else Rows(())

    def new_version(self, stage: int) -> int:
        """Count a set of rows that workers are about to be told of."""
        self.version += 1
        kept, duties = self._kept.get(stage), []
        if kept is not None and kept.stage.has_shuffle:
            for node in kept.rows.nodes:
                duties.append((node, kept.holdings.coverage(kept.rows.duty(node, kept.items))))
        self._versions[self.version] = _Version(stage, self.rows(stage), tuple(duties))
        if len(self._versions) > 256:  # a worker so far behind reports again, with a version that counts
            del self._versions[next(iter(self._versions))]
        return self.version

    def on_view(self, view: View) -> bool:
        """Mend all rows; True if any has moved."""
        self._ring = holders_ring(view)
        self._present = frozenset(member.id for member in view.ring_members)
        moved = [index for index in self._kept if self._mend(index)]
        if moved:
            self._changed()
        return bool(moved)

    def _mend(self, index: int) -> bool:
        kept = self._kept[index]
        replicas = self._graph.plan.replicas
        kept.rows, changes = mend_rows(
            self._job, kept.stage.step, kept.rows, replicas, self._ring, self._present
        )
        if changes:
            self._moved.setdefault(index, {}).update(changes)
        return bool(changes)

    def moves_text(self) -> str:
        """The moves that the record does not know yet, in words."""
        rows = [row for of_stage in self._moved.values() for row in of_stage.values()]
        nodes = sorted({node for row in rows for node in row})
        return f"{len(rows)} rows of places, now at {', '.join(nodes) or 'nobody'}"

    def take_moves(self) -> list[Change]:
        """The moves that the record does not know yet; forgets them."""
        changes: list[Change] = [
            Place(stage=stage, rows=tuple(sorted(rows.items())))
            for stage, rows in sorted(self._moved.items())
        ]
        self._moved.clear()
        return changes

    @property
    def copies_possible(self) -> int:
        """How many copies of a part there can be."""
        return min(self._graph.plan.replicas, len(self._ring))

    # -- copies ------------------------------------------------------------------------------------------

    def orders(self, now: float) -> list[tuple[NodeId, CopyOrder]]:
        """Choose the copies that shall be made next: (who shall push, the order without its ballot)."""
        return self._copies.orders(self._kept.values(), self._ring, self._present, now)

    def unanswered(self, now: float) -> list[tuple[NodeId, CopyOrder]]:
        """Copy orders that should be said again."""
        return self._copies.unanswered(now)

    def copied(self, number: int, reason: str, now: float) -> str:
        """A copy order was answered; gives what was done, in words, "" where nothing was."""
        text = self._copies.answered(number, reason, self._kept.get(self._copies.stage_of(number)), now)
        if text:
            self.generation += 1
        return text

    def depends_on(self, node: NodeId) -> bool:
        """Whether copies are still to be made of what a node holds."""
        return self._copies.depends_on(node, self._kept.values(), self._ring)

    def is_short(self, stage: int) -> bool:
        """Whether outputs of a stage have fewer copies than they could have."""
        kept = self._kept.get(stage)
        return kept is not None and self._copies.is_short(kept, self._ring)

    @property
    def look_at(self) -> float:
        """When copies should be looked at again, whether or not anything happens."""
        return self._copies.look_at

    # -- losses ------------------------------------------------------------------------------------------

    def gone(self) -> frozenset[tuple[int, int]]:
        """The (stage, task) of winners' outputs that are needed and that nobody is known to hold whole."""
        if self._gone_generation != self.generation:
            self._gone_generation = self.generation
            self._gone_outputs = frozenset(
                (index, task) for index, kept in self._kept.items() for task in tasks_in(kept.gone)
            )
        return self._gone_outputs

    def give_up(self, outputs: Sequence[tuple[int, int]]) -> list[Change]:
        """Return what must be taken back when these outputs are given up: them, and what they are made of."""
        assert self._record is not None
        changes: list[Change] = []
        for index in sorted({stage for stage, _ in outputs}):
            attempts = self._kept[index].attempts
            tasks = [LostTask(task=task, attempt=attempts[task]) for stage, task in outputs if stage == index]
            changes.append(Lost(stage=index, tasks=tuple(tasks)))
            changes += self._graph.revival(self._record, index)
        return changes

    def _changed(self) -> None:
        self._copies.is_dirty = True
        self.generation += 1


def _cover(duties: Iterable[tuple[NodeId, Coverage]], items: int) -> bool:
    """Whether these places hold every item together."""
    coverages = [coverage for _, coverage in duties]
    return all(any(coverage.covers(item) for coverage in coverages) for item in range(items))
