"""What a worker tells of its attempts, and when: each result until it is settled, everything now and then.

Results that follow each other closely are told together, within `JobsConfig.report_window_s`; when nothing
else is in hand they are told at once.  Every `beat_s` the worker says everything it has in hand, which renews
leases and tells a new leader what there is.  A message may be lost, so what was told and is not settled
`retry_s` later is told again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import inf

from mapreduce.config import JobsConfig
from mapreduce.held import Hands, Held
from mapreduce.messages import Done, Failed, HeldAttempt, HeldGroup, Phase
from mapreduce.telling import MAX_DONE_IN_MESSAGE, in_messages

__all__ = ["Reports", "inventory_parts"]

MAX_INVENTORY_TASKS = 8_192
MAX_INVENTORY_GROUPS = 2_048


class Reports:
    """The reports of one job on one worker.

    Args:
        hands: what the job has in hand here.
        config: see there.
    """

    def __init__(self, hands: Hands, config: JobsConfig) -> None:
        self._hands = hands
        self._config = config
        self._failed: dict[int, tuple[Failed, float]] = {}
        self._unreported: list[int] = []
        self._done_at = inf
        self._all_at = inf
        self._all_said_at = -inf

    def __contains__(self, attempt: int) -> bool:
        """Whether an attempt has failed, which is not settled yet."""
        return attempt in self._failed

    @property
    def next_deadline(self) -> float:
        """When something is due."""
        return min(self._all_at, self._done_at)

    def clear(self) -> None:
        """The stage is over, and its results with it."""
        self._failed.clear()
        self._unreported.clear()
        self._done_at = inf

    # -- results -------------------------------------------------------------------------------------------

    def finished(self, held: Held, now: float) -> None:
        """An attempt is finished."""
        hands = self._hands
        self._unreported.append(held.attempt)
        idle = not (hands.running or hands.queued or hands.pushing)
        full = len(self._unreported) >= MAX_DONE_IN_MESSAGE
        due = now if idle or full else now + self._config.report_window_s
        self._done_at = min(self._done_at, due)

    def failed(self, report: Failed, now: float) -> None:
        """An attempt has failed, which is told at this moment."""
        self._failed[report.attempt] = (report, now)

    def settled(self, attempt: int) -> None:
        """That an attempt has failed need not be told again."""
        self._failed.pop(attempt, None)

    def done(self, now: float) -> list[tuple[int, tuple[Done, ...]]]:
        """What has finished, if it is to be told now: (version of the places, results) for each message."""
        if now < self._done_at:
            return []
        self._done_at = inf
        by_version: dict[int, list[Done]] = {}
        for attempt in dict.fromkeys(self._unreported):
            held = self._hands.attempts.get(attempt)
            if held is not None and held.phase is Phase.FINISHED:
                held.reported_at = now
                by_version.setdefault(held.version, []).append(_done(held))
        self._unreported.clear()
        return [
            (version, some) for version, items in sorted(by_version.items()) for some in in_messages(items)
        ]

    # -- everything ----------------------------------------------------------------------------------------

    def tell_all(self, now: float) -> None:
        """Say at once all that is in hand."""
        self._all_at = now

    def tell_all_soon(self, now: float) -> None:
        """Say soon all that is in hand, but not more often than a queue should take."""
        self._all_at = min(self._all_at, max(now, self._all_said_at + self._config.queue_s))

    def all_in_hand(self, now: float) -> tuple[HeldAttempt, ...] | None:
        """All that is in hand, if it is to be told now; None: it is not."""
        if now < self._all_at:
            return None
        self._all_said_at, self._all_at = now, now + self._config.beat_s
        return tuple(
            [
                HeldAttempt(task=held.task, attempt=held.attempt, phase=held.phase)
                for held in self._hands.attempts.values()
            ]
        )

    def again(self, ballot: int, now: float) -> list[Failed]:
        """What was told and not settled: the failures, to be told now; of the finished `done` will tell."""
        overdue = now - self._config.retry_s
        for one in self._hands.attempts.values():
            if one.phase is Phase.FINISHED and one.reported_at <= overdue:
                self._unreported.append(one.attempt)
                self._done_at = now
        failed = []
        for attempt, (report, said_at) in list(self._failed.items()):
            if said_at <= overdue:
                self._failed[attempt] = (report, now)
                failed.append(replace(report, ballot=ballot))
        return failed


def inventory_parts(groups: Sequence[HeldGroup]) -> Iterator[list[HeldGroup]]:
    """Cut what lies here into as many messages as it takes; one at least.

    Args:
        groups: all that lies here of a job.
    """
    batch: list[HeldGroup] = []
    size = 0
    for group in groups:
        for start in range(0, max(1, len(group.tasks)), MAX_INVENTORY_TASKS):
            stop = start + MAX_INVENTORY_TASKS
            part = HeldGroup(
                stage=group.stage,
                partitions=group.partitions,
                tasks=group.tasks[start:stop],
                attempts=group.attempts[start:stop],
            )
            weight = len(part.tasks) + len(part.partitions)
            is_full = size + weight > MAX_INVENTORY_TASKS or len(batch) >= MAX_INVENTORY_GROUPS
            if batch and is_full:
                yield batch
                batch, size = [], 0
            batch.append(part)
            size += weight
    yield batch


def _done(held: Held) -> Done:
    output = held.output
    assert output is not None
    return Done(
        task=held.task,
        attempt=held.attempt,
        is_empty=output.is_empty,
        digest=output.digest,
        size_bytes=output.size_bytes,
        records=output.records,
        cuts=output.cuts,
        counters=dict(output.counters),
        sample=output.sample,
        replica_bytes=held.sent_bytes,
        spilled_bytes=output.spilled_bytes,
        bad_records=output.bad_records,
        took_ms=int(output.took_s * 1000),
        cpu_ms=int(output.cpu_s * 1000),
    )
