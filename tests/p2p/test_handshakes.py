"""The accounts of an inbox: every stranger counted once, no honest connection counted as one."""

from __future__ import annotations

from p2p.handshakes import CRYPTOGRAPHIC, MECHANISM_MISMATCH, DoorEvent, DoorLedger

SUCCEEDED, REFUSED, PROTOCOL = DoorEvent.SUCCEEDED, DoorEvent.REFUSED, DoorEvent.PROTOCOL
UNFINISHED, ENDED = DoorEvent.UNFINISHED, DoorEvent.ENDED


def kinds(ledger: DoorLedger, *events: tuple[DoorEvent, int]) -> list[str]:
    found = [ledger.note(event, value) for event, value in events]
    return [kind for kind in found if kind is not None]


def test_a_connection_that_talked_and_ended_is_nobody_strange() -> None:
    ledger = DoorLedger()
    assert kinds(ledger, (SUCCEEDED, 0)) == []
    ledger.heard(30)
    ledger.heard(30)
    assert kinds(ledger, (ENDED, 30)) == []
    assert ledger.ended == 1


def test_a_frame_may_be_read_before_the_event_that_lets_its_connection_in() -> None:
    ledger = DoorLedger()
    ledger.heard(30)
    assert kinds(ledger, (SUCCEEDED, 0), (ENDED, 30)) == []


def test_a_connection_that_never_said_a_word_is_nobody_strange() -> None:
    assert kinds(DoorLedger(), (SUCCEEDED, 0), (ENDED, 30)) == []


def test_each_failure_is_counted_once_under_its_own_kind() -> None:
    ledger = DoorLedger()
    assert kinds(ledger, (PROTOCOL, CRYPTOGRAPHIC), (ENDED, 1)) == ["other_ring"]
    assert kinds(ledger, (PROTOCOL, MECHANISM_MISMATCH), (ENDED, 1)) == ["no_key"]
    assert kinds(ledger, (PROTOCOL, 0x10000000), (ENDED, 1)) == ["garbage"]
    assert kinds(ledger, (UNFINISHED, 0), (ENDED, 1)) == ["unfinished"]
    assert kinds(ledger, (REFUSED, 400), (ENDED, 1)) == []  # the doorman has counted it


def test_a_connection_that_just_ends_was_garbage() -> None:
    assert kinds(DoorLedger(), (ENDED, 30)) == ["garbage"]


def test_a_descriptor_that_is_used_again_by_a_stranger_is_not_taken_for_the_friend() -> None:
    ledger = DoorLedger()
    ledger.heard(30)
    assert kinds(ledger, (SUCCEEDED, 0), (ENDED, 30), (ENDED, 30)) == ["garbage"]


def test_where_strangers_and_friends_mix_the_sums_are_right() -> None:
    ledger = DoorLedger()
    for friend in (30, 31):
        kinds(ledger, (SUCCEEDED, 0))
        ledger.heard(friend)
    found = kinds(
        ledger,
        (REFUSED, 400),
        (ENDED, 40),
        (ENDED, 41),
        (ENDED, 30),
        (UNFINISHED, 0),
        (ENDED, 31),
        (ENDED, 42),
    )
    assert sorted(found) == ["garbage", "unfinished"]
