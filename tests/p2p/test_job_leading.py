"""A peer that leads a job, and what becomes of its leadership."""

from __future__ import annotations

from pathlib import Path

from p2p import job_inquiries as iq
from p2p.job_keys import JOB_KEY
from tests.p2p.test_job_service import JOB, Leading


def test_a_leader_whose_change_its_register_does_not_take_leads_no_more(tmp_path: Path) -> None:
    """Else its heartbeats would keep all others from leading a job that nobody leads."""
    peer = Leading(tmp_path)
    try:
        peer.come_to_lead()
        peer.silent = True
        while peer.engine.propose(JOB, lambda record: record.payload, peer.now) is not None:
            pass
        peer.hear(iq.EndJob(number=1, job=JOB, by="a client"), "b")
        assert not peer.leads()
        assert not peer.engine.registers.proposers[JOB_KEY + JOB].leads
    finally:
        peer.engine.close()
