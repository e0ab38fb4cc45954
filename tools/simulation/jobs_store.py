"""A simulated store of segments: what a peer holds of jobs' outputs, on a disk that forgets and rots.

A segment is one attempt's output, or those partitions of it that the peer is a place of.  It is written whole
and never changed; its digest, and whose output it says it is, are checked whenever it is read.

fault              what it does                                            what the store does
=================  ======================================================  ===============================
crash              loses what was not synced; what was half written is     finds it damaged when it is read
                   torn
bit rot            changes a byte of something that lies here              the same
misdirected write  something lies where another thing lay, whole, and      finds both damaged
                   nothing where it should
failed fsync       EIO: nobody knows what is on the disk                   drops it, refuses the push
disk full          ENOSPC                                                  refuses the push
slow disk          everything that is written takes long                   acknowledges late
=================  ======================================================  ===============================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import blake2b
from random import Random

from mapreduce.messages import HeldGroup
from tools.simulation.jobs_engine import Run
from tools.simulation.node import Disk

__all__ = ["DiskFailed", "JobFault", "Segment", "SegmentMissing", "Store", "segment_of", "torn"]

Key = tuple[str, int, int, int]


class JobFault(StrEnum):
    """Misfortunes that only jobs know: those of their disks."""

    ROT = "bit rot"
    FULL = "disk full"
    FSYNC = "failed fsync"
    MISDIRECTED = "misdirected write"
    TORN = "torn write"
    SLOW = "slow disk"


class SegmentMissing(Exception):
    """What was asked for does not lie here, or is damaged (and has been removed)."""

    def __init__(self, task: int, attempt: int, *, damaged: bool) -> None:
        super().__init__(f"task {task}, attempt {attempt:#x} {'is damaged' if damaged else 'is not here'}")
        self.task = task
        self.attempt = attempt
        self.damaged = damaged


class DiskFailed(Exception):
    """Something could not be written; the reason is the message."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One attempt's output, or some partitions of it; `partitions` empty: all there is.

    `header` is the name that was written with the bytes.
    """

    job: str
    stage: int
    task: int
    attempt: int
    partitions: tuple[int, ...]
    runs: dict[int, Run]
    digest: bytes
    header: str

    @property
    def key(self) -> Key:
        """Of the attempt."""
        return self.job, self.stage, self.task, self.attempt

    @property
    def is_intact(self) -> bool:
        """Whether the bytes are those that were written, and written here."""
        return self.header == _name(self) and _digest(self.runs) == self.digest

    def covers(self, partition: int) -> bool:
        """Whether the segment is responsible for a partition, which may be empty."""
        return not self.partitions or partition in self.partitions


def segment_of(
    job: str, stage: int, task: int, attempt: int, partitions: tuple[int, ...], runs: dict[int, Run]
) -> Segment:
    """A segment of some partitions of an output."""
    chosen = {p: run for p, run in runs.items() if not partitions or p in partitions}
    segment = Segment(job, stage, task, attempt, partitions, chosen, _digest(chosen), "")
    return replace(segment, header=_name(segment))


def torn(segment: Segment) -> Segment:
    """What is left of a segment of which half was written."""
    halves = {p: replace(run, data=run.data[: len(run.data) // 2]) for p, run in segment.runs.items()}
    return replace(segment, runs=halves, header=segment.header if segment.runs else "")


def _digest(runs: dict[int, Run]) -> bytes:
    state = blake2b(digest_size=16)
    for partition in sorted(runs):
        state.update(b"%d %d " % (partition, len(runs[partition].data)) + runs[partition].data)
    return state.digest()


class Store:
    """One life of a peer's store.

    Args:
        disk: the node's.
        syncs: whether a segment is synced before it is acknowledged; if not, a crash may lose it.
        fired: what misfortunes really happened.
    """

    def __init__(self, disk: Disk, *, syncs: bool, fired: Counter[JobFault]) -> None:
        self.is_full = False
        self.bad_syncs = 0  # so many of the next will fail
        self.misdirects: Random | None = None  # the next write goes to a place that this one draws
        self.slow_s = 0.0
        self._fired = fired
        self._disk = disk
        self._syncs = syncs
        self._segments: dict[Key, list[Segment]] = {}
        for name in sorted(disk.durable):
            value = disk.durable[name]
            if isinstance(value, Segment):
                self._segments.setdefault(value.key, []).append(value)

    def write(self, segment: Segment) -> None:
        """Keep a segment; raises ``DiskFailed``. Writing the same again changes nothing."""
        known = self._segments.setdefault(segment.key, [])
        if any(one.partitions == segment.partitions for one in known):
            return
        if self.is_full:
            raise DiskFailed("no space left")
        if self.bad_syncs and self._syncs:
            self.bad_syncs -= 1
            self._fired[JobFault.FSYNC] += 1
            raise DiskFailed("input/output error at fsync")
        if self.misdirects is not None:
            segment = self._misdirect(segment, self.misdirects)
        known.append(segment)
        self._disk.write(_name(segment), segment)
        if self._syncs:
            self._disk.sync()

    def read(self, job: str, stage: int, task: int, attempt: int, partition: int) -> Run | None:
        """One partition's run, None where it has no pairs; raises ``SegmentMissing``."""
        for segment in self._segments.get((job, stage, task, attempt), []):
            if segment.covers(partition):
                if not segment.is_intact:
                    self._remove(segment)
                    raise SegmentMissing(task, attempt, damaged=True)
                return segment.runs.get(partition)
        raise SegmentMissing(task, attempt, damaged=False)

    def extract(self, job: str, stage: int, task: int, attempt: int, partitions: tuple[int, ...]) -> Segment:
        """The part of an output that a copy is to have; raises ``SegmentMissing``."""
        runs: dict[int, Run] = {}
        for partition in partitions or (0,):
            run = self.read(job, stage, task, attempt, partition)
            if run is not None:
                runs[partition] = run
        return segment_of(job, stage, task, attempt, partitions, runs)

    def holds(self, job: str, stage: int, task: int, attempt: int, partition: int) -> bool:
        """Whether the partition of an output lies here, intact; for checks, changes nothing."""
        return any(
            segment.covers(partition) and segment.is_intact
            for segment in self._segments.get((job, stage, task, attempt), [])
        )

    def inventory(self, job: str) -> list[HeldGroup]:
        """What lies here of a job; damage is not looked for."""
        groups: dict[tuple[int, tuple[int, ...]], list[Segment]] = {}
        for segment in self.segments(job):
            groups.setdefault((segment.stage, segment.partitions), []).append(segment)
        return [
            HeldGroup(
                stage=stage,
                partitions=partitions,
                tasks=tuple([segment.task for segment in some]),
                attempts=tuple([segment.attempt for segment in some]),
            )
            for (stage, partitions), some in groups.items()
        ]

    @property
    def jobs(self) -> list[str]:
        """The jobs of which something lies here."""
        return sorted({key[0] for key in self._segments})

    def segments(self, job: str) -> Iterator[Segment]:
        """All segments of a job."""
        for key, some in list(self._segments.items()):
            if key[0] == job:
                yield from some

    def drop(self, job: str, stages: Sequence[int] | None, *, but: int = -1) -> None:
        """Remove some stages of a job; None: all but one."""
        for segment in list(self.segments(job)):
            if segment.stage in stages if stages is not None else segment.stage != but:
                self._remove(segment)

    def rot(self, random: Random) -> bool:
        """Change one byte somewhere; whether there was one."""
        all_segments = [s for some in self._segments.values() for s in some if s.runs]
        if not all_segments:
            return False
        segment = random.choice(all_segments)
        partition = random.choice(sorted(segment.runs))
        run = segment.runs[partition]
        if not run.data:
            return False
        data = bytearray(run.data)
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        rotten = replace(segment, runs={**segment.runs, partition: replace(run, data=bytes(data))})
        self._overwrite(segment, rotten)
        return True

    def _misdirect(self, segment: Segment, random: Random) -> Segment:
        """Write a segment over another one; gives what lies where it should be: nothing of it."""
        others = [other for some in self._segments.values() for other in some if other.runs]
        if not others:
            return segment
        self.misdirects = None
        self._fired[JobFault.MISDIRECTED] += 1
        victim = random.choice(others)
        self._overwrite(
            victim, replace(victim, runs=segment.runs, digest=segment.digest, header=segment.header)
        )
        return replace(segment, runs={}, header="")

    def _overwrite(self, segment: Segment, by: Segment) -> None:
        some = self._segments[segment.key]
        some[some.index(segment)] = by
        self._disk.write(_name(segment), by)
        self._disk.sync()

    def _remove(self, segment: Segment) -> None:
        some = self._segments[segment.key]
        some[:] = [one for one in some if one.partitions != segment.partitions]
        if not some:
            del self._segments[segment.key]
        self._disk.write(_name(segment), None)
        self._disk.sync()


def _name(segment: Segment) -> str:
    covered = ",".join(map(str, segment.partitions))
    return f"segment/{segment.job}/{segment.stage}/{segment.task}/{segment.attempt}/{covered}"
