"""The attempts of one simulated peer: how long they take, what luck they have, and what they read.

An attempt takes a drawn time, in which nothing of it is seen. Then it fails by bad luck, or because an input
is missing or damaged, or it is run by `jobs_engine` on the very bytes that lie in the store; what it made
stays here until it is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable

from mapreduce.effects import RunTask, TaskOutput
from mapreduce.failures import INPUT_GONE, NOT_BEGUN
from mapreduce.record import Failure, StageKind
from mapreduce.worker import Worker
from tools.simulation.jobs_engine import Made, Run, make
from tools.simulation.jobs_store import SegmentMissing, Store, segment_of
from tools.simulation.jobs_swarm import Life
from tools.simulation.world import Violation

__all__ = ["Attempts"]

# Of shorter ones a slot may be given several at a time.
LONG_TASK_S = 0.05


class Attempts:
    """What runs in one life of a peer; all of it by (job, attempt).

    Args:
        life: of the peer.
        store: where reduces find their runs, and maps of parts their part.
        worker: hears how attempts end.

    Attributes:
        running: what was begun and has not ended.
        made: the outputs that are not forgotten yet.
        fetched: what attempts that wait were sent to read.
    """

    def __init__(self, life: Life, store: Store, worker: Worker) -> None:
        self.running: dict[tuple[str, int], RunTask] = {}
        self.made: dict[tuple[str, int], Made] = {}
        self.fetched: dict[tuple[str, int], bytes] = {}
        self._life = life
        self._swarm = life.swarm
        self._store = store
        self._worker = worker

    def run(self, order: RunTask) -> None:
        """Begin an attempt; the worker hears of its end, unless it is cancelled."""
        self._swarm.watch_run(self._life.node, order)
        moods, random = self._swarm.moods, self._life.random
        self.running[order.setup.job, order.attempt] = order
        if moods.task_s[0] >= LONG_TASK_S and len(self.running) > self._swarm.slots:
            raise Violation(f"{self._life.me} runs {len(self.running)} tasks in {self._swarm.slots} slots")
        took_s = random.uniform(*moods.task_s)
        if random.random() < moods.slow:
            took_s = moods.slow_s
        self._life.later(took_s, lambda now: self._ran(order, took_s, now))

    def _ran(self, order: RunTask, took_s: float, now: float) -> Iterable[object]:
        job = order.setup.job
        if self.running.pop((job, order.attempt), None) is None:
            return []  # it was cancelled
        failure = self._bad_luck(order)
        if failure is not None:
            if failure.kind != NOT_BEGUN:
                self.fetched.pop((job, order.attempt), None)
            return self._worker.on_task_failed(job, order.attempt, failure, now)
        try:
            inputs = self._inputs(order)
        except SegmentMissing as missing:
            failure = Failure(kind=INPUT_GONE, message=str(missing))
            tasks = (missing.task,) if order.setup.kind is StageKind.REDUCE else ()
            return self._worker.on_task_failed(job, order.attempt, failure, now, missing=tasks)
        made = make(self._swarm.works[job], order, inputs)
        self.made[job, order.attempt] = made
        self.fetched.pop((job, order.attempt), None)
        is_part = order.setup.kind is StageKind.REDUCE or order.setup.map_only
        output = TaskOutput(
            partitions=() if is_part else tuple(sorted(made.runs)),
            is_empty=not made.runs,
            digest=segment_of(job, 0, 0, 0, (), made.runs).digest if is_part else b"",
            size_bytes=made.size_bytes,
            records=made.records,
            cuts=made.cuts,
            counters=made.counters,
            sample=made.sample,
            bad_records=made.bad_records,
            took_s=took_s,
            cpu_s=took_s,
        )
        return self._worker.on_task_done(job, order.attempt, output, now)

    def _bad_luck(self, order: RunTask) -> Failure | None:
        moods, random = self._swarm.moods, self._life.random
        died, raised = random.random() < moods.deaths, random.random() < moods.user_errors
        if died and random.random() < 0.5:
            return Failure(kind=NOT_BEGUN, message="its process was killed before")
        # A task's later attempts are spared: the job is to end well.
        if order.number >= self._swarm.plans[order.setup.job].max_attempts - 1:
            return None
        if died:
            return Failure(kind="Died", message="its process was killed")
        if raised:
            return Failure(kind="UserCode", message="ValueError: bad luck", details="Traceback …")
        return None

    def _inputs(self, order: RunTask) -> list[Run]:
        job = order.setup.job
        if order.setup.kind is StageKind.REDUCE:
            runs = []
            for task, attempt in enumerate(order.reads):
                if attempt:
                    run = self._store.read(job, order.read_stage, task, attempt, order.task)
                    if run is not None:
                        runs.append(run)
            return runs
        if order.piece is None:
            return []
        piece = order.piece
        data = self.fetched.get((job, order.attempt))
        if data is None:
            part = self._store.read(job, piece.stage, piece.part, piece.attempt, 0)
            data = part.data[piece.start : piece.end] if part is not None else b""
        return [Run(data)]

    def cancel(self, job: str, attempt: int) -> None:
        """Stop an attempt, and forget what it has made and was to read."""
        self.running.pop((job, attempt), None)
        self.made.pop((job, attempt), None)
        self.fetched.pop((job, attempt), None)
