"""How a register is changed within one group: rounds, batches, rivals, and what happens when nobody answers.

How it goes from one group to the next is in `test_epochs`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from membership.errors import TooManyProposals
from membership.phases import Phase
from membership.register import Group, Place
from membership.register_config import LOCAL_REGISTER
from membership.register_effects import (
    Abandoned,
    Committed,
    Founded,
    Leads,
    Outbid,
    QuorumLost,
    QuorumRegained,
    Refused,
)
from membership.register_messages import Accept, Accepted, Prepare, Promise
from membership.view import NodeId
from tests.membership.bench import KEY, Bench, Letter, acceptor, append, lead, look, members, to


def three(**settings: object) -> Bench:
    """Three nodes with a register, of which n0 is the founder."""
    bench = Bench(3, config=replace(LOCAL_REGISTER, **settings))  # type: ignore[arg-type]
    bench.found(0, 1, 2)
    for number in (1, 2):
        bench.introduce(number, 0, 1, 2)
    bench.sent.clear()
    return bench


def kinds(bench: Bench) -> Counter[str]:
    return Counter(type(letter.message).__name__ for letter in bench.sent)


# -- rounds ----------------------------------------------------------------------------------------------


def test_a_founded_register_is_reported_with_its_handle_when_a_majority_holds_it() -> None:
    bench = Bench(3)
    bench.lost = lambda letter: letter.to == NodeId("n2")
    bench.found(0, 1, 2, payload=b"hello")
    assert bench.hosts[0].told(Founded) == [
        Founded(group=Group(key=KEY, place=Place(0, 0), members=members(0, 1, 2)))
    ]
    assert bench.log(0) == "hello"


def test_it_is_not_founded_by_less_than_a_majority() -> None:
    bench = Bench(3)
    bench.lost = lambda letter: letter.to in to(1, 2)
    bench.found(0, 1, 2)
    assert not bench.hosts[0].told(Founded)


def test_a_change_is_one_prepare_and_one_accept_and_the_next_is_one_accept_only() -> None:
    bench = three()
    bench.propose(1, append("a"))
    bench.settle()
    assert {"Prepare": 2, "Promise": 2, "Accept": 2, "Accepted": 2}.items() == dict(kinds(bench)).items()
    bench.sent.clear()
    bench.propose(1, append("b"))
    bench.settle()
    assert kinds(bench) == {"Accept": 2, "Accepted": 2}
    assert bench.log(2) == "a b"


def test_what_comes_while_a_round_is_under_way_shares_the_next_one_in_order() -> None:
    bench = three()
    for token in "abcde":
        bench.propose(1, append(token))
    bench.settle()
    assert kinds(bench)["Accept"] == 2  # all five waited for the prepare
    shown = [event.record.payload for event in bench.hosts[1].told(Committed)]
    assert shown == [b"a", b"a b", b"a b c", b"a b c d", b"a b c d e"]


def test_no_more_than_a_batch_goes_into_one_round() -> None:
    bench = three(batch_max=2)
    for token in "abcde":
        bench.propose(1, append(token))
    bench.settle()
    assert kinds(bench)["Accept"] == 3 * 2
    assert bench.log(1) == "a b c d e"


def test_a_leader_waits_a_moment_for_more_changes_and_others_do_not() -> None:
    bench = three(batch_s=0.02)
    lead(bench, 0)
    bench.propose(0, append("a"))
    bench.settle()
    assert not bench.hosts[0].told(Committed)
    bench.advance(0.01)
    bench.propose(0, append("b"))
    bench.advance(0.01)
    assert [event.record.payload for event in bench.hosts[0].told(Committed)] == [b"a", b"a b"]


def test_a_majority_is_enough_and_less_is_not() -> None:
    bench = three()
    bench.kill(2)
    bench.propose(0, append("a"))
    bench.settle()
    assert len(bench.hosts[0].told(Committed)) == 1
    bench.kill(1)
    bench.propose(0, append("b"))
    bench.advance(30.0)
    assert len(bench.hosts[0].told(Committed)) == 1


def test_a_new_proposer_builds_on_what_was_accepted_highest_not_on_what_it_heard_last() -> None:
    bench = three()
    bench.propose(0, append("a"))
    bench.settle()
    bench.lost = lambda letter: letter.to == NodeId("n2")  # n2 does not learn of b
    bench.propose(0, append("b"))
    bench.settle()
    bench.lost = lambda letter: letter.to == NodeId("n0") or letter.source == NodeId("n0")
    bench.propose(2, append("c"))  # n2 first hears itself, which knows the older record
    bench.settle()
    assert bench.log(2) == "a b c"


def test_an_answer_that_comes_twice_counts_once() -> None:
    bench = Bench(4)
    bench.found(1, 2, 3)
    bench.introduce(0, 1, 2, 3)
    bench.lost = lambda letter: letter.to in to(2, 3)
    bench.propose(0, append("a"))
    bench.settle()
    promise = next(letter for letter in bench.sent if isinstance(letter.message, Promise))
    for _ in range(5):
        bench.deliver(promise)
    assert bench[0].proposers[KEY].phase is Phase.PREPARING
    bench.lost = lambda letter: (
        letter.to == NodeId("n3") or (letter.to == NodeId("n2") and isinstance(letter.message, Accept))
    )
    bench.advance(0.15)
    assert bench[0].proposers[KEY].phase is Phase.ACCEPTING
    accepted = next(letter for letter in bench.sent if isinstance(letter.message, Accepted))
    for _ in range(5):
        bench.deliver(accepted)
    assert not bench.hosts[0].told(Committed)


def test_answers_for_another_ballot_or_in_anothers_name_do_not_count() -> None:
    bench = Bench(4)
    bench.found(1, 2, 3)
    bench.introduce(0, 1, 2, 3)
    bench.lost = lambda letter: letter.to in to(2, 3)
    bench.propose(0, append("a"))
    bench.settle()
    promise = next(letter.message for letter in bench.sent if isinstance(letter.message, Promise))
    older = replace(promise.ballot, round=promise.ballot.round - 1)
    for message, source in [
        (replace(promise, acceptor=acceptor(2), ballot=older), "n2"),
        (replace(promise, acceptor=acceptor(2)), "n3"),
        (replace(promise, acceptor=acceptor(9)), "n9"),
        (replace(promise, acceptor=acceptor(2), place=Place(0, 1)), "n2"),
    ]:
        bench.deliver(Letter(NodeId(source), NodeId("n0"), message))
    assert bench[0].proposers[KEY].phase is Phase.PREPARING


def test_a_lost_request_is_sent_again_ever_more_slowly() -> None:
    bench = three()
    bench.kill(1)
    bench.kill(2)
    bench.propose(0, append("a"))
    bench.advance(10.0)
    tries = [letter for letter in bench.sent if letter.to == NodeId("n1")]
    assert 10 <= len(tries) <= 15  # 0.1, 0.2, 0.4, 0.8, then one a second


# -- bad changes -----------------------------------------------------------------------------------------


def test_a_payload_that_is_too_large_is_refused_and_the_rest_of_its_batch_is_not() -> None:
    bench = three(payload_bytes_max=10)
    bench.propose(0, append("a"))
    huge = bench.propose(0, append("b" * 11))
    bench.propose(0, append("c"))
    bench.settle()
    assert [(event.proposal, event.payload_bytes) for event in bench.hosts[0].told(Refused)] == [(huge, 13)]
    assert bench.log(0) == "a c"


def test_a_full_queue_refuses_more_and_is_bounded() -> None:
    bench = three(proposals_max=2)
    bench.kill(1)
    bench.kill(2)
    bench.propose(0, append("a"))
    bench.propose(0, append("b"))
    with pytest.raises(TooManyProposals):
        bench.propose(0, append("c"))


def test_nothing_is_written_after_a_terminal_payload() -> None:
    bench = three()
    for token in ("a", "END", "b"):
        bench.propose(0, append(token))
    bench.settle()
    last = bench.hosts[0].told(Committed)[-1].record
    assert (last.payload, last.terminal) == (b"a END", True)
    bench.propose(1, append("c"))
    bench.settle()
    assert bench.log(2) == "a END"


# -- rivals ----------------------------------------------------------------------------------------------


def test_who_is_outbid_tries_again_higher_and_both_changes_are_kept() -> None:
    bench = three()
    bench.propose(0, append("a"))
    bench.propose(1, append("b"))
    bench.advance(5.0)
    assert sorted(bench.log(2).split()) == ["a", "b"]


def test_a_change_of_unknown_outcome_is_not_applied_twice() -> None:
    bench = three()
    bench.propose(0, append("a"))
    bench.settle()
    # n0's accept of b reaches n1 only, and the answer is lost; then n2 takes over and finds b there.
    bench.lost = lambda letter: letter.to == NodeId("n2") or letter.source == NodeId("n1")
    bench.propose(0, append("b"))
    bench.settle()
    bench.lost = lambda letter: letter.to == NodeId("n0")
    bench.propose(2, append("c"))
    bench.settle()
    bench.lost = lambda _letter: False
    bench.advance(5.0)
    assert bench.log(1) == "a b c"
    assert [event.record.payload for event in bench.hosts[0].told(Committed)][-1] == b"a b c"


def test_one_refusal_among_three_does_not_depose_a_leader() -> None:
    bench = three(batch_s=0.0)
    lead(bench, 0)
    bench.lost = lambda letter: letter.to in to(0, 1)
    bench.propose(2, look)  # only its own acceptor hears n2's prepare
    bench.settle()
    bench.lost = lambda _letter: False
    bench.letters.clear()
    bench.propose(0, append("a"))
    bench.settle()
    assert not bench.hosts[0].told(Outbid)
    assert len(bench.hosts[0].told(Committed)) == 1


def test_a_leader_that_is_outbid_steps_down_at_once_and_gives_its_changes_back() -> None:
    bench = three(batch_s=0.0)
    lead(bench, 0)
    lead(bench, 1)
    first = bench.propose(0, append("a"))
    second = bench.propose(0, append("b"))
    bench.settle()
    (outbid,) = bench.hosts[0].told(Outbid)
    assert outbid.by is not None
    assert outbid.by.node == "n1"
    (abandoned,) = bench.hosts[0].told(Abandoned)
    assert (abandoned.proposals, abandoned.uncertain) == ((first, second), (first,))
    assert not bench[0].proposers[KEY].leads
    assert bench[1].proposers[KEY].leads


def test_the_second_leaders_fence_is_higher_than_any_of_the_first() -> None:
    bench = three(batch_s=0.0)
    for number in (0, 1):
        lead(bench, number)
        for token in "abc":
            bench.propose(number, append(f"{number}{token}"))
            bench.settle()
    first = [event.fence for event in bench.hosts[0].told(Committed)]
    second = [event.fence for event in bench.hosts[1].told(Leads)]
    assert len(first) == 3
    assert max(first) < min(second)


def test_who_loses_too_often_in_a_row_gives_its_changes_up() -> None:
    bench = three(outbids_max=3)
    number = bench.propose(0, append("a"))
    bench.settle()
    bench.propose(1, append("x"))
    bench.settle()
    lost = bench.propose(0, append("b"))
    for step in range(40):
        bench.propose(1, append(f"x{step}"))
        bench.settle()
        bench.lost = lambda letter: isinstance(letter.message, Prepare) and letter.source == NodeId("n0")
        bench.advance(0.3)
        bench.lost = lambda _letter: False
        if bench.hosts[0].told(Abandoned):
            break
    assert number in [event.proposal for event in bench.hosts[0].told(Committed)]
    done = [event.proposal for event in bench.hosts[0].told(Committed)]
    given_up = [proposal for event in bench.hosts[0].told(Abandoned) for proposal in event.proposals]
    assert lost in done + given_up


# -- without a majority ----------------------------------------------------------------------------------


def test_a_lost_majority_is_reported_once_with_who_is_missing_and_so_is_its_return() -> None:
    bench = three()
    bench.kill(1)
    bench.kill(2)
    bench.propose(0, append("a"))
    bench.advance(0.5)
    assert not bench.hosts[0].told(QuorumLost)
    bench.advance(20.0)
    (lost,) = bench.hosts[0].told(QuorumLost)
    assert (lost.missing, lost.needed) == (members(1, 2), 2)
    bench.boot(2)
    bench.advance(2.0)
    assert len(bench.hosts[0].told(QuorumRegained)) == 1
    assert bench.log(0) == "a"


def test_when_all_lose_power_at_once_what_was_acknowledged_is_there_afterwards() -> None:
    bench = three()
    bench.propose(0, append("a"))
    bench.settle()
    for number in range(3):
        bench.kill(number)
    for number in range(3):
        bench.boot(number)
    assert bench.log(2) == "a"
