"""What jobs are and how they stand, unpacked once: plans out of specs, records out of registers.

Both are asked for all the time and change seldom.  A job's plan never does, so it is kept as long as the job.
A register's record is asked about several times in a row, by whoever proposes, leads and answers; the last
one is kept.
"""

from __future__ import annotations

from mapreduce.record import JobRecord
from mapreduce.spec import JobPlan
from membership.register import Record
from p2p.errors import MalformedFrame
from p2p.job_keys import JOB_KEY, SPEC_ATTEMPT
from p2p.job_protocol import pack_record, unpack_record
from p2p.segments import SPEC_STAGE, DamagedSegment
from p2p.spec_packing import unpack_spec
from p2p.store import Store

__all__ = ["JobRecords"]


class JobRecords:
    """Plans and records of the jobs that one peer knows.

    Args:
        store: where specs lie.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._plans: dict[str, JobPlan] = {}
        self._last: tuple[bytes, JobRecord] | None = None

    def plan(self, job: str) -> JobPlan | None:
        """Return a job's plan, if its spec is here; one that cannot be read is removed."""
        plan = self._plans.get(job)
        if plan is None:
            located = self._store.find(job, SPEC_STAGE, SPEC_ATTEMPT)
            if located is None:
                return None
            try:
                plan = unpack_spec(self._store.read(located)).plan
            except (DamagedSegment, OSError):
                return None  # the store has removed it, or it cannot be opened just now
            except MalformedFrame:
                self._store.remove_segment(located.path)
                return None
            self._plans[job] = plan
        return plan

    def take_plan(self, job: str, plan: JobPlan) -> None:
        """A job's spec is here, and this is its plan."""
        self._plans[job] = plan

    def forget(self, job: str) -> None:
        """A job's time to live is over, or its spec is not here any more."""
        self._plans.pop(job, None)

    def record_in(self, record: Record) -> JobRecord:
        """Return what a register's record holds."""
        return self._unpacked(record.payload)

    def packed(self, record: JobRecord) -> bytes:
        """Return a record as a register holds it; it will soon be asked about."""
        payload = pack_record(record)
        self._last = (payload, record)
        return payload

    def is_final(self, key: str, payload: bytes) -> bool:
        """Tell whether what a register holds is the record of a job that is over."""
        return key.startswith(JOB_KEY) and self._unpacked(payload).status.is_final

    def _unpacked(self, payload: bytes) -> JobRecord:
        if self._last is None or self._last[0] is not payload:
            self._last = (payload, unpack_record(payload))
        return self._last[1]
