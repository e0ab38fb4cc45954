"""Named locks, both sides alone: what peers say of their tasks' claims, and what the keeper makes of it."""

from __future__ import annotations

from mapreduce.config import JobsConfig
from mapreduce.lock_claims import MAX_CLAIMS, LockClaims
from mapreduce.lock_keeper import LockKeeper
from mapreduce.locking import (
    AmendLocks,
    HasLocks,
    HeldLock,
    LockClaim,
    LockDenied,
    LockGranted,
    LockLost,
    SayLocks,
    TellLocks,
    WantLocks,
    lock_key_of,
)
from membership.locks import Lock, LockTable
from membership.view import NodeId

JOB = "0" * 32
A, B = NodeId("a"), NodeId("b")
CONFIG = JobsConfig()


def claims() -> LockClaims:
    return LockClaims(session=7, config=CONFIG)


def wants(number: int, *listed: LockClaim, session: int = 7) -> WantLocks:
    return WantLocks(job=JOB, session=session, number=number, claims=listed)


def claim(serial: int = 1, token: int = 0) -> LockClaim:
    return LockClaim(lock="x", serial=serial, token=token)


def table(token: int, *claimants: str) -> LockTable:
    return LockTable(token, (("x", Lock(token, claimants)),)) if claimants else LockTable(token)


def keeper(now: float = 0.0, known: LockTable | None = None) -> LockKeeper:
    """One that has read its table."""
    made = LockKeeper(job=JOB, config=CONFIG)
    assert made.start() == [AmendLocks()]
    assert made.on_chosen(known or LockTable(), now) == []
    return made


# -- the peer of the tasks --------------------------------------------------------------------------------


def test_a_claim_is_said_at_once_and_again_until_it_is_over() -> None:
    mine = claims()
    (said,) = mine.want(JOB, 5, 1, "name", 10.0)
    first = LockClaim(lock=lock_key_of("name"), serial=1)
    assert said == SayLocks(wants(1, first))
    assert mine.next_deadline() == 10.0 + CONFIG.lock_renew_s
    assert mine.tick(mine.next_deadline()) == [SayLocks(wants(2, first))]
    assert mine.attempt_ended(JOB, 5, 11.0) == [SayLocks(wants(3))]
    assert mine.tick(20.0) == []


def test_a_task_is_told_of_its_lock_once_and_keeps_its_token() -> None:
    mine = claims()
    mine.want(JOB, 5, 1, "name", 10.0)
    has = HasLocks(job=JOB, session=7, held=(HeldLock(serial=1, token=3),))
    assert mine.receive(has) == [LockGranted(job=JOB, attempt=5, ticket=1, token=3)]
    assert mine.receive(has) == []
    (said,) = mine.tick(11.0)
    assert said == SayLocks(wants(2, LockClaim(lock=lock_key_of("name"), serial=1, token=3)))


def test_what_another_life_was_told_is_nothing_to_this_one() -> None:
    mine = claims()
    mine.want(JOB, 5, 1, "name", 10.0)
    assert mine.receive(HasLocks(job=JOB, session=6, held=(HeldLock(serial=1, token=3),))) == []


def test_a_task_that_has_lost_its_lock_is_ended_and_one_that_waits_is_not() -> None:
    mine = claims()
    mine.want(JOB, 5, 1, "name", 10.0)
    lost = HasLocks(job=JOB, session=7, held=(), lost=(1,))
    assert mine.receive(lost) == []
    mine.receive(HasLocks(job=JOB, session=7, held=(HeldLock(serial=1, token=3),)))
    (ended,) = mine.receive(lost)
    assert isinstance(ended, LockLost)
    assert "it lost the lock 'name'" in ended.reason


def test_waiting_ends_with_a_line_that_says_for_what() -> None:
    mine = claims()
    mine.want(JOB, 5, 1, "name", 10.0)
    denied, said = mine.tick(10.0 + CONFIG.lock_wait_s)
    assert isinstance(denied, LockDenied)
    assert denied.reason == "waited 600 s for the lock 'name', which others hold"
    assert said == SayLocks(wants(2))


def test_claims_are_bounded() -> None:
    mine = claims()
    for ticket in range(MAX_CLAIMS):
        mine.want(JOB, 5, ticket, "name", 10.0)
    (denied,) = mine.want(JOB, 5, MAX_CLAIMS, "name", 10.0)
    assert isinstance(denied, LockDenied)


# -- the keeper -------------------------------------------------------------------------------------------


def test_a_token_is_told_when_the_register_has_chosen_it_and_not_before() -> None:
    kept = keeper()
    assert kept.receive(wants(1, claim()), A, 1.0) == [AmendLocks(claims=(("x", "a/7/1"),))]
    assert kept.receive(wants(2, claim()), A, 1.1) == []
    (told,) = kept.on_chosen(table(1, "a/7/1"), 1.2)
    assert told == TellLocks(A, HasLocks(job=JOB, session=7, held=(HeldLock(serial=1, token=1),)))


def test_a_list_that_comes_late_changes_nothing() -> None:
    kept = keeper()
    kept.receive(wants(2), A, 1.0)
    assert kept.receive(wants(1, claim()), A, 1.1) == []


def test_who_is_not_listed_any_more_is_struck_off_and_the_next_one_is_told() -> None:
    kept = keeper(known=table(1, "a/7/1", "b/7/1"))
    kept.receive(wants(1, claim(token=1)), A, 1.0)
    kept.receive(wants(1, claim()), B, 1.0)
    assert kept.receive(wants(2), A, 1.1) == [AmendLocks(releases=("a/7/1",))]
    assert kept.on_chosen(table(2, "b/7/1"), 1.2) == [
        TellLocks(B, HasLocks(job=JOB, session=7, held=(HeldLock(serial=1, token=2),)))
    ]


def test_a_dead_peers_claims_are_struck_off() -> None:
    kept = keeper(known=table(1, "a/7/1"))
    kept.receive(wants(1, claim(token=1)), A, 1.0)
    assert kept.peer_is_gone(A, 1.1) == [AmendLocks(releases=("a/7/1",))]


def test_who_falls_silent_is_struck_off_when_its_lease_is_over() -> None:
    kept = keeper(known=table(1, "a/7/1"))
    kept.receive(wants(1, claim(token=1)), A, 1.0)
    assert kept.next_deadline() == 1.0 + CONFIG.lock_lease_s
    assert kept.tick(kept.next_deadline() - 0.1) == []
    assert kept.tick(kept.next_deadline()) == [AmendLocks(releases=("a/7/1",))]


def test_whoever_a_new_keeper_finds_in_the_table_has_a_lease() -> None:
    kept = keeper(now=50.0, known=table(1, "a/7/1"))
    assert kept.tick(50.0 + CONFIG.lock_lease_s - 0.1) == []
    assert kept.tick(50.0 + CONFIG.lock_lease_s) == [AmendLocks(releases=("a/7/1",))]


def test_who_was_struck_off_and_lives_hears_that_it_has_lost_its_lock() -> None:
    kept = keeper(known=table(2, "b/7/1"))
    (told,) = kept.receive(wants(1, claim(token=1)), A, 1.0)
    assert told == TellLocks(A, HasLocks(job=JOB, session=7, held=(), lost=(1,)))


def test_a_token_that_the_keeper_has_not_heard_of_makes_it_look_again() -> None:
    kept = keeper(known=table(2, "b/7/1"))
    assert kept.receive(wants(1, claim(token=3)), A, 1.0) == [AmendLocks()]
    (told,) = kept.on_chosen(table(3, "a/7/1"), 1.1)
    assert told == TellLocks(A, HasLocks(job=JOB, session=7, held=(HeldLock(serial=1, token=3),)))


def test_a_look_that_did_not_bring_a_holders_token_is_repeated_after_a_while_and_not_at_once() -> None:
    kept = keeper(known=table(2, "b/7/1"))
    assert kept.receive(wants(1, claim(token=3)), A, 1.0) == [AmendLocks()]
    assert kept.on_chosen(table(2, "b/7/1"), 1.1) == []
    assert kept.receive(wants(2, claim(token=3)), A, 1.2) == []
    assert kept.next_deadline() == 1.1 + CONFIG.retry_s
    assert kept.tick(kept.next_deadline()) == [AmendLocks()]


def test_a_look_that_nobody_needs_any_more_is_not_waited_for() -> None:
    kept = keeper(known=table(2, "b/7/1"))
    kept.receive(wants(1, claim(token=3)), A, 1.0)
    kept.on_chosen(table(2, "b/7/1"), 1.1)
    kept.receive(wants(2), A, 1.2)
    assert kept.tick(1.1 + CONFIG.retry_s) == []
    assert kept.next_deadline() == CONFIG.lock_lease_s


def test_a_table_that_is_full_is_tried_again_after_a_while_and_not_at_once() -> None:
    kept = keeper()
    kept.receive(wants(1, claim()), A, 1.0)
    assert kept.on_chosen(LockTable(), 1.1) == []
    assert kept.next_deadline() == 1.1 + CONFIG.retry_s
    assert kept.tick(kept.next_deadline()) == [AmendLocks(claims=(("x", "a/7/1"),))]


def test_after_a_change_of_unknown_outcome_the_keeper_reads_before_it_goes_on() -> None:
    kept = keeper()
    kept.receive(wants(1, claim()), A, 1.0)
    assert kept.on_failed(1.1) == []
    assert kept.receive(wants(2, claim()), A, 1.2) == []
    assert kept.tick(1.1 + CONFIG.retry_s) == [AmendLocks()]


def test_a_lease_that_is_over_does_not_wake_a_keeper_that_waits_to_read_its_table() -> None:
    kept = keeper()
    kept.receive(wants(1, claim()), A, 1.0)
    failed_at = 1.0 + CONFIG.lock_lease_s + 1.0
    kept.on_failed(failed_at)
    assert kept.next_deadline() == failed_at + CONFIG.retry_s
