"""Tasks that read files of the ring: their blocks are brought here before a child begins.

A task's key is its block's key, so most tasks run where their block lies, and nothing moves.  A peer that has
taken a task from a busier one, or whose split lies in several blocks, fetches what it lacks from any holder;
it keeps that as one copy more, until the block keeper drops it (`p2p.block_keeper`).  A reader that turns out
to need another block (a long record, the header of a table) fails with `BlockNotHere`; the block is fetched
and the same attempt begins again, which costs no attempt of the task.  A block that is found damaged is
removed and fetched in the same way.

A block that nobody gives is asked for again, `TRIES` times: its holders may be starting.  Then the attempt
fails.

Pure, but for the store that is asked what lies here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from mapreduce.effects import RunTask
from mapreduce.pieces import Piece
from mapreduce.record import Failure
from membership.view import NodeId
from p2p.blocks import AFTER, BEFORE, RingPath, attempt_of, block_count
from p2p.segments import FILE_STAGE, WHOLE, DamagedSegment
from p2p.store import Store

if TYPE_CHECKING:
    from p2p.job_service import JobService

__all__ = ["RingInputs", "pieces_here"]

TRIES = 8
MAX_BEGINNINGS = 64
PAUSE_S = 2.0


@dataclass(slots=True)
class _Waiting:
    """A task that waits for blocks."""

    task: RunTask
    path: RingPath
    lacking: set[int]
    again_at: float = inf
    tries: dict[int, int] = field(default_factory=dict)


class RingInputs:
    """The tasks of this peer that read files of the ring; `desk` is the service that it is a part of."""

    def __init__(self, desk: JobService) -> None:
        self._desk = desk
        self._waiting: dict[tuple[str, int], _Waiting] = {}
        self._beginnings: dict[tuple[str, int], int] = {}  # of attempts that had to begin again
        self._more: dict[tuple[str, int], set[int]] = {}  # blocks that they turned out to need

    def run(self, task: RunTask, now: float) -> None:
        """Run a task as soon as the blocks of its split are here; one that reads none at once."""
        split = task.split
        path = RingPath.parse(split.path) if split is not None else None
        if path is None or split is None:
            self._desk.runner.run(task)
            return
        self._wait_for(task, path, path.blocks(split.start, split.end), now)

    def lacks(self, task: RunTask, offset: int, now: float) -> None:
        """A task that was begun needs the block of this byte too; -1: one that it read was damaged."""
        assert task.split is not None
        path = RingPath.parse(task.split.path)
        assert path is not None, "only tasks that read files of the ring lack blocks"
        key = (task.setup.job, task.attempt)
        self._beginnings[key] = self._beginnings.get(key, 0) + 1
        if self._beginnings[key] > MAX_BEGINNINGS:
            text = f"{task.split.name}: a record of it lies in too many blocks, or they are damaged again"
            failure = Failure(kind="EnvironmentFailed", message=text, node=self._desk.me)
            self._desk.task_failed(*key, failure, now)
            return
        more = self._more.setdefault(key, set())
        if offset >= 0:
            more.add(offset // path.block_bytes)
        self._wait_for(task, path, {*path.blocks(task.split.start, task.split.end), *more}, now)

    def cancel(self, job: str, attempt: int) -> None:
        """The attempt is not wanted any more."""
        self._waiting.pop((job, attempt), None)

    def drop_job(self, job: str) -> None:
        """Nothing of the job is wanted any more."""
        for key in [key for key in self._waiting if key[0] == job]:
            del self._waiting[key]
        for key in [key for key in self._beginnings if key[0] == job]:
            del self._beginnings[key]
            self._more.pop(key, None)

    def fetched(self, job: str, attempt: int, block: int, reason: str, now: float) -> None:
        """A block is here (`reason` ""), or nobody has given it."""
        waiting = self._waiting.get((job, attempt))
        if waiting is None or block not in waiting.lacking:
            return
        if not reason:
            waiting.lacking.discard(block)
            if not waiting.lacking:
                del self._waiting[job, attempt]
                self._begin(waiting.task)
            return
        waiting.tries[block] = waiting.tries.get(block, 0) + 1
        if waiting.tries[block] < TRIES:
            waiting.again_at = min(waiting.again_at, now + PAUSE_S)
            return
        del self._waiting[job, attempt]
        assert waiting.task.split is not None
        count = block_count(waiting.path.size_bytes, waiting.path.block_bytes)
        text = f"{waiting.task.split.name}: block {block} of {count} lies with no peer that is here"
        failure = Failure(kind="EnvironmentFailed", message=text, node=self._desk.me)
        self._desk.task_failed(job, attempt, failure, now)

    def tick(self, now: float) -> None:
        """Ask again for what nobody has given."""
        for waiting in list(self._waiting.values()):
            if waiting.again_at <= now:
                waiting.again_at = inf
                for block in sorted(waiting.lacking):
                    self._fetch(waiting, block, now)

    def next_deadline(self) -> float:
        """When to be ticked again."""
        return min((waiting.again_at for waiting in self._waiting.values()), default=inf)

    # -- inside ----------------------------------------------------------------------------------------

    def _wait_for(self, task: RunTask, path: RingPath, blocks: Iterable[int], now: float) -> None:
        self._desk.ring_files.blocks.use(path.file, now)
        lacking = {
            block for block in blocks if not self._desk.store.holds(path.file, FILE_STAGE, attempt_of(block))
        }
        if not lacking:
            self._begin(task)
            return
        waiting = self._waiting[task.setup.job, task.attempt] = _Waiting(task, path, lacking)
        for block in sorted(lacking):
            self._fetch(waiting, block, now)

    def _begin(self, task: RunTask) -> None:
        self._desk.runner.run(task, self._more.get((task.setup.job, task.attempt), ()))

    def _fetch(self, waiting: _Waiting, block: int, now: float) -> None:
        path, task = waiting.path, waiting.task
        tag = ("input", task.setup.job, task.attempt, block)
        self._desk.fetch(path.file, FILE_STAGE, attempt_of(block), self._whom(path, block), tag, now)

    def _whom(self, path: RingPath, block: int) -> list[NodeId]:
        """Who to ask: those who have said that they hold it, or else everybody, places first."""
        me = self._desk.me
        known = [node for node in self._desk.ring_files.blocks.holders(path.file, block) if node != me]
        if known:
            return known
        count = block_count(path.size_bytes, path.block_bytes)
        row = self._desk.ring_files.blocks.places(path.file, count, 2)[block]
        everybody = [*row, *[member.id for member in self._desk.swim.view.ring_members]]
        return [node for node in dict.fromkeys(everybody) if node != me]


def pieces_here(
    store: Store, path: RingPath, start: int, end: int, more_blocks: Iterable[int] = ()
) -> list[Piece]:
    """Return what lies here of a split's blocks, of those beside them, of the first, and of `more_blocks`.

    Raises:
        OSError: a segment cannot be read.
    """
    count = block_count(path.size_bytes, path.block_bytes)
    wanted = path.blocks(start, end)
    found: list[Piece] = []
    around = {0, *range(max(0, wanted.start - 1), min(wanted.stop + 1, count)), *more_blocks}
    for block in sorted(block for block in around if block < count):
        attempt = attempt_of(block)
        at = block * path.block_bytes
        for partition in (WHOLE, BEFORE, AFTER):
            located = store.find(path.file, FILE_STAGE, attempt, partition)
            if located is None or not located.length:
                continue
            try:
                body = store.body(located.path)
            except DamagedSegment:
                store.remove_segment(located.path)
                break
            length = min(path.block_bytes, path.size_bytes - at)
            first = {WHOLE: at, BEFORE: at - located.length, AFTER: at + length}[partition]
            found.append(
                Piece(
                    at=first,
                    length=located.length,
                    path=located.path,
                    offset=located.offset,
                    body_offset=body.offset,
                    body_length=body.length,
                    digest=body.digest,
                )
            )
    return found
