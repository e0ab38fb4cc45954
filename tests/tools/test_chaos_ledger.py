"""What the ledger makes of acceptors' votes: which records were chosen, and which writes were stale."""

from __future__ import annotations

from dataclasses import replace

from mapreduce.record import JobRecord, JobStatus, StageKind, StageRecord, Winner, born
from membership.acceptor import Vote
from membership.register import AcceptorId, Ballot, Record
from membership.view import NodeId
from p2p.job_protocol import pack_record, unpack_record
from tools.chaos.ledger import Ledger

MEMBERS = tuple(AcceptorId(NodeId(name), f"disk of {name}") for name in ("a", "b", "c"))
A, B, C = MEMBERS
FIRST, SECOND = NodeId("a"), NodeId("b")


def record_of(leadership: int, applied: int, *attempts: int | None) -> JobRecord:
    """The record of a job whose only stage has these winners."""
    winners = tuple(None if one is None else Winner(attempt=one, worker=0) for one in attempts)
    stage = StageRecord(kind=StageKind.MAP, tasks=len(winners), partitions=1, winners=winners)
    first = born("5" * 32, "ab", 0.0)
    return replace(first, ballot=leadership, applied=applied, stage=0, stages=(stage,), nodes=(FIRST,))


def vote_of(record: JobRecord, round_: int, *, epoch: int = 0, promised: int = 0) -> Vote:
    """An acceptor's vote for a record at a ballot."""
    held = Record(generation=0, epoch=epoch, members=MEMBERS, payload=pack_record(record))
    return Vote(Ballot(promised or round_, FIRST, 1), Ballot(round_, FIRST, 1), held)


def seen(*votes: tuple[AcceptorId, Vote]) -> Ledger:
    """A ledger that was shown these, one after another."""
    ledger = Ledger(unpack_record)
    for acceptor, vote in votes:
        ledger.see(acceptor, vote)
    return ledger


def agreed(*votes: Vote) -> Ledger:
    """A ledger that has seen a majority vote so, one time after another."""
    return seen(*((acceptor, vote) for vote in votes for acceptor in (A, B)))


def test_what_a_majority_accepted_at_one_ballot_is_chosen_whenever_each_was_looked_at() -> None:
    older, newer = vote_of(record_of(1, 1, None), 1), vote_of(record_of(1, 2, 7), 2)
    assert seen((A, older)).newest is None
    ledger = seen((A, older), (A, newer), (B, older))
    assert ledger.newest == record_of(1, 1, None)
    ledger.see(C, newer)
    assert ledger.newest == record_of(1, 2, 7)
    assert ledger.stale() == []


def test_what_a_minority_accepted_is_no_write() -> None:
    ledger = agreed(vote_of(record_of(2, 1, 7), 5))
    ledger.see(C, vote_of(record_of(1, 9, 8), 4))  # a deposed leader's, at one who had not heard
    assert ledger.newest == record_of(2, 1, 7)
    assert ledger.stale() == []


def test_a_write_of_a_deposed_leader_is_stale() -> None:
    [line] = agreed(vote_of(record_of(2, 1, 7), 5), vote_of(record_of(1, 9, 7), 6)).stale()
    assert "proposal 9 of leadership 1" in line


def test_a_winner_that_is_replaced_or_forgotten_is_stale_unless_its_outputs_were_lost() -> None:
    won = vote_of(record_of(1, 1, 7), 1)
    [line] = agreed(won, vote_of(record_of(1, 2, 8), 2)).stale()
    assert "attempt 7 had won task 0" in line
    assert agreed(won, vote_of(record_of(1, 2, None), 2)).stale()
    lost = record_of(1, 2, None)
    lost = replace(lost, stages=(replace(lost.stages[0], again=(0,)),))
    assert agreed(won, vote_of(lost, 2)).stale() == []


def test_a_stage_that_was_opened_stays() -> None:
    opened = record_of(1, 1, 7)
    none = replace(opened, applied=2, stage=-1, stages=())
    [line] = agreed(vote_of(opened, 1), vote_of(none, 2)).stale()
    assert "now 0 have" in line
    bare = replace(none, status=JobStatus.FAILED)  # it had grown too large for its own end
    assert agreed(vote_of(opened, 1), vote_of(bare, 2)).stale() == []


def test_a_stage_that_was_dropped_comes_back_only_to_be_run_again() -> None:
    dropped, back = record_of(1, 1, 7), record_of(1, 2, 7)
    dropped = replace(dropped, stages=(replace(dropped.stages[0], is_dropped=True, winners=()),))
    [line] = agreed(vote_of(dropped, 1), vote_of(back, 2)).stale()
    assert "1 of its tasks are back" in line
    again = replace(back, stages=(replace(back.stages[0], winners=(None,), again=(0,)),))
    assert agreed(vote_of(dropped, 1), vote_of(again, 2)).stale() == []


def test_what_is_final_stays() -> None:
    done = replace(record_of(1, 1, 7), status=JobStatus.COMMITTED)
    failed = replace(record_of(2, 1, 7), status=JobStatus.FAILED)
    assert agreed(vote_of(done, 1), vote_of(replace(done, ballot=2), 2)).stale() == []
    assert agreed(vote_of(done, 1), vote_of(failed, 2)).stale()


def test_an_acceptor_that_forgets_its_promise_is_found() -> None:
    record = record_of(1, 1, 7)
    [line] = seen((A, vote_of(record, 1, promised=5)), (A, vote_of(record, 2, promised=2))).stale()
    assert "a went back" in line
    assert seen((A, vote_of(record, 5)), (A, vote_of(record, 1, epoch=1))).stale() == []
