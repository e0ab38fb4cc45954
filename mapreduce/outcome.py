"""What people are told of a job: how it stands, why it failed, what it did, its log.  Parts of its record.

By themselves, because a client shows them and knows nothing else of `mapreduce.record`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from membership.view import NodeId

__all__ = ["NOBODY", "EventRecord", "Failure", "JobStatus", "StageKind", "Totals"]

NOBODY = NodeId("")


class JobStatus(StrEnum):
    """How a job stands; all but RUNNING are for ever."""

    RUNNING = "RUNNING"
    COMMITTED = "COMMITTED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        """Whether the job has ended."""
        return self is not JobStatus.RUNNING


class StageKind(StrEnum):
    """What the tasks of a stage do."""

    SAMPLE = "sample"
    MAP = "map"
    REDUCE = "reduce"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a job, or an attempt, failed: what crosses between peers instead of an exception.

    Attributes:
        kind: name of a class in `mapreduce.errors`, or "UserCode", "Died".
        message: one line that says what and where.
        details: the user's own traceback, or the last that the task printed.
        position: where in the input, or at which key.
        node: the peer on which it happened, "" where it was none.
    """

    kind: str
    message: str
    details: str = ""
    position: str = ""
    node: NodeId = NOBODY


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What the job did, summed over winners (and, for the attempts, over everything granted)."""

    shuffle_bytes: int = 0
    replica_bytes: int = 0
    spilled_bytes: int = 0
    output_bytes: int = 0
    output_records: int = 0
    map_tasks: int = 0
    reduce_tasks: int = 0
    attempts: int = 0
    failed_attempts: int = 0
    speculated: int = 0
    bad_records: int = 0
    maps_run_again: int = 0
    parts_run_again: int = 0
    leader_changes: int = 0
    peers_lost: int = 0
    cpu_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """One line of a job's log.

    Attributes:
        at_s: wall clock of the peer that saw it.
        kind: one word: "leader", "stage", "lost", "replanned", "again", "failed", "healed", …; or, of what is
            counted by the second (`mapreduce.doings`), one of `mapreduce.changes.ROUTINE_KINDS`.
        node: the peer it is about, "" for none.
        text: one line.
    """

    at_s: float
    kind: str
    node: NodeId = NOBODY
    text: str = ""
