"""Records of jobs that are over, known to be chosen: a vote alone may be a minority's.

A member of a job's group reads the register only when its own vote is final: a read outbids whoever leads,
and a job that runs must not be disturbed by questions.  A final record absorbs, so this read can change
nothing.  Whoever asks meanwhile is answered when the read is done, or has come to nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from mapreduce.record import JobRecord
from membership.register import Record
from p2p.job_keys import JOB_KEY

if TYPE_CHECKING:
    from p2p.job_service import JobService

__all__ = ["JobFinals"]

MAX_FINAL = 1_024
MAX_ASKERS = 64

Answer = Callable[[], None]


class JobFinals:
    """The final records that one peer knows; `desk` is the service that it is a part of."""

    def __init__(self, desk: JobService) -> None:
        self._desk = desk
        self._final: OrderedDict[str, JobRecord] = OrderedDict()
        # {job: the number of a read under way, and who waits for it}
        self._reads: dict[str, tuple[int, list[Answer]]] = {}

    def get(self, job: str) -> JobRecord | None:
        """Return the record of a job that is known to be over."""
        return self._final.get(job)

    def when_known(self, job: str, answer: Answer, now: float) -> None:
        """Call `answer` when as much is known as can be: at once, or after the register was read.

        Of those who wait the oldest are forgotten beyond `MAX_ASKERS`; they ask again.
        """
        vote = self._desk.registers.acceptor.get(JOB_KEY + job)
        if (
            self._desk.leader(job) is not None
            or job in self._final
            or vote is None
            or not vote.record.terminal
        ):
            answer()
            return
        if job in self._reads:
            self._reads[job][1].append(answer)
            del self._reads[job][1][:-MAX_ASKERS]
            return
        number = self._desk.propose(job, _unchanged, now)
        if number is None:
            answer()
        else:
            self._reads[job] = (number, [answer])

    def seek(self, job: str, now: float) -> JobRecord | None:
        """Return the record of a job that is known to be over; None: it is being read, ask again."""
        leader = self._desk.leader(job)
        if leader is not None and leader.has_ended:
            return leader.record  # it need not ask the others
        if job not in self._final and job not in self._reads:
            number = self._desk.propose(job, _unchanged, now)
            if number is not None:
                self._reads[job] = (number, [])
        return self._final.get(job)

    def on_read(self, job: str, number: int, record: JobRecord) -> None:
        """A read of a register is done."""
        if record.status.is_final:
            self._final[job] = record
            if len(self._final) > MAX_FINAL:
                self._final.popitem(last=False)
        self._read_ended(job, number)

    def on_abandoned(self, job: str, numbers: Iterable[int]) -> None:
        """Reads that came to nothing."""
        for number in numbers:
            self._read_ended(job, number)

    def _read_ended(self, job: str, number: int) -> None:
        known = self._reads.get(job)
        if known is not None and known[0] == number:
            del self._reads[job]
            for answer in known[1]:
                answer()

    def forget(self, job: str) -> None:
        """A job's time to live is over; whoever waits is answered."""
        self._final.pop(job, None)
        _, answers = self._reads.pop(job, (0, []))
        for answer in answers:
            answer()


def _unchanged(record: Record) -> bytes:
    """A change that only reads."""
    return record.payload
