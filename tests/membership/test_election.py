"""Who tries to lead, and when: one leader while all is well, another soon after, nobody needlessly."""

from __future__ import annotations

from dataclasses import replace

import pytest

from membership.election import Election, Phase, Stand, StepDown
from membership.register import Ballot, Fence, Place, Record
from membership.register_config import LOCAL_REGISTER
from membership.register_effects import (
    Committed,
    GroupChanged,
    LeaderHeard,
    Leads,
    Outbid,
    QuorumLost,
    SendTo,
)
from membership.register_messages import AskHearing, Hearing, Heartbeat, Prepare, Promise
from membership.view import NodeId
from tests.membership.bench import Bench, acceptor, append, members

CONFIG = LOCAL_REGISTER
JOB = "job"
TAKEOVER_S = CONFIG.silence_s + 2 * CONFIG.stagger_s + 0.1  # with a suspicion, by the first or second in rank


def fence(round_: int, node: str = "n1", epoch: int = 0) -> Fence:
    return Fence(Place(0, epoch), Ballot(round_, NodeId(node), 1))


def beat(round_: int, node: str = "n1") -> Heartbeat:
    return Heartbeat(key=JOB, fence=fence(round_, node), members=members(0, 1, 2))


def election(me: str = "n0", *, nobody_led: bool = False) -> Election:
    return Election(
        key=JOB,
        me=NodeId(me),
        place=Place(0, 0),
        members=members(0, 1, 2),
        config=CONFIG,
        now=0.0,
        nobody_led=nobody_led,
    )


def following(leader: str = "n1", me: str = "n0") -> Election:
    """A member that has just heard a leader."""
    machine = election(me)
    machine.receive(beat(5, leader), NodeId(leader), 0.0)
    return machine


def silence(number: int) -> Hearing:
    return Hearing(key=JOB, number=number, leader=None, fence=None)


def polled(machine: Election, now: float) -> int | None:
    """Tick; the number of the poll that it begins, if it does."""
    for effect in machine.tick(now):
        if isinstance(effect, SendTo) and isinstance(effect.message, AskHearing):
            return effect.message.number
    return None


# -- doubt -----------------------------------------------------------------------------------------------


def test_a_leader_that_is_heard_is_not_doubted_even_if_membership_suspects_it() -> None:
    machine = following()
    for step in range(20):
        now = step * CONFIG.heartbeat_s
        machine.receive(beat(5), NodeId("n1"), now)
        machine.observe({NodeId("n1")}, 0, now)
        assert machine.phase is Phase.FOLLOWING


def test_silence_alone_is_doubt_only_after_a_long_time_and_with_a_suspicion_after_a_short_one() -> None:
    machine = following()
    assert machine.next_deadline() == CONFIG.desertion_s
    machine.observe({NodeId("n1")}, 0, 0.1)
    assert machine.next_deadline() == CONFIG.silence_s


@pytest.mark.parametrize(("me", "turn"), [("n2", 0), ("n0", 1)])
def test_members_stand_in_turns_beginning_behind_the_leader_that_is_gone(me: str, turn: int) -> None:
    machine = following("n1", me)
    machine.observe({NodeId("n1")}, 0, CONFIG.silence_s)
    due = CONFIG.silence_s + turn * CONFIG.stagger_s
    assert polled(machine, due - 0.001) is None
    assert turn == 0 or machine.phase is Phase.DOUBTING
    assert turn == 0 or polled(machine, due) is not None
    assert machine.phase is Phase.POLLING


def test_the_ill_let_all_others_stand_first() -> None:
    machine = following("n1", "n2")
    machine.observe({NodeId("n1")}, CONFIG.ill_health, CONFIG.silence_s)
    assert machine.next_deadline() == pytest.approx(CONFIG.silence_s + 3 * CONFIG.stagger_s)


def test_a_heartbeat_ends_the_doubt() -> None:
    machine = following("n1", "n0")
    machine.observe({NodeId("n1")}, 0, CONFIG.silence_s)
    machine.receive(beat(6), NodeId("n1"), CONFIG.silence_s + 0.01)
    assert machine.phase is Phase.FOLLOWING
    assert polled(machine, CONFIG.silence_s + CONFIG.stagger_s) is None


def test_the_heartbeat_of_a_deposed_leader_changes_nothing() -> None:
    machine = following("n1")
    machine.receive(beat(9, "n2"), NodeId("n2"), 0.1)
    machine.receive(beat(5, "n1"), NodeId("n1"), 0.2)
    assert machine.leader == "n2"
    assert machine.next_deadline() == 0.1 + CONFIG.desertion_s


# -- the poll --------------------------------------------------------------------------------------------


def standing_for_poll() -> tuple[Election, int]:
    machine = following("n1", "n2")
    machine.observe({NodeId("n1")}, 0, CONFIG.silence_s - 0.01)
    number = polled(machine, CONFIG.silence_s)
    assert number is not None
    return machine, number


def test_it_stands_above_the_last_leaders_ballot_when_a_majority_hears_nobody() -> None:
    machine, number = standing_for_poll()
    effects = machine.receive(silence(number), NodeId("n0"), 0.7)
    assert effects == [Stand(fence(5).ballot)]
    assert machine.phase is Phase.STANDING


def test_it_follows_again_when_the_others_hear_the_leader() -> None:
    machine, number = standing_for_poll()
    for other in ("n0", "n1"):
        machine.receive(
            Hearing(key=JOB, number=number, leader=NodeId("n1"), fence=fence(5)), NodeId(other), 0.7
        )
    assert machine.phase is Phase.FOLLOWING
    assert machine.leader == "n1"


def test_it_follows_a_new_leader_of_which_the_poll_tells() -> None:
    machine, number = standing_for_poll()
    news = Hearing(key=JOB, number=number, leader=NodeId("n0"), fence=fence(8, "n0"))
    assert machine.receive(news, NodeId("n0"), 0.7)
    assert (machine.phase, machine.leader) == (Phase.FOLLOWING, "n0")


@pytest.mark.parametrize(("source", "offset"), [("n0", -1), ("n0", 1), ("n9", 0), ("n2", 0)])
def test_answers_to_another_poll_or_of_strangers_or_its_own_do_not_count(source: str, offset: int) -> None:
    machine, number = standing_for_poll()
    assert machine.receive(silence(number + offset), NodeId(source), 0.7) == []
    assert machine.phase is Phase.POLLING


def test_without_answers_it_asks_again_later_and_never_stands() -> None:
    machine, first = standing_for_poll()
    now, polls = CONFIG.silence_s, {first}
    for _ in range(100):
        now = machine.next_deadline()
        assert machine.phase in (Phase.POLLING, Phase.DOUBTING)
        number = polled(machine, now)
        polls.update([] if number is None else [number])
    assert len(polls) == 51
    assert now > 20 * CONFIG.stagger_s


def test_whoever_hears_the_restarted_leaders_former_life_counts_as_hearing_nobody() -> None:
    machine = election("n1")
    number = polled(machine, CONFIG.desertion_s + CONFIG.stagger_s * 3) or polled(
        machine, machine.next_deadline()
    )
    assert number is not None
    stale = Hearing(key=JOB, number=number, leader=NodeId("n1"), fence=fence(5))
    assert [type(effect) for effect in machine.receive(stale, NodeId("n0"), 5.0)] == [Stand]


def standing() -> Election:
    """A member that stands since 5.0 s, and whose proposer has asked for ballot 8."""
    machine = following()
    machine.tick(5.0)
    machine.tick(machine.next_deadline())
    assert machine.phase is Phase.POLLING
    number = 1
    assert machine.receive(silence(number), NodeId("n2"), 5.0) != []
    assert machine.phase is Phase.STANDING
    machine.asks(fence(8, "n0"))
    return machine


def test_it_does_not_take_back_what_it_has_asked_for_because_of_a_late_heartbeat() -> None:
    machine = standing()
    assert machine.receive(beat(5), NodeId("n1"), 5.1) == []
    assert machine.phase is Phase.STANDING


@pytest.mark.parametrize("case", ["a later leader", "another epoch", "its proposer rests", "again and again"])
def test_it_stops_trying_when_somebody_leads_after_all(case: str) -> None:
    machine, heard, at = standing(), beat(5), 5.1
    match case:
        case "a later leader":
            heard = beat(9)
        case "another epoch":
            heard = replace(heard, fence=fence(5, epoch=1))
        case "its proposer rests":
            machine.asks(None)
        case "again and again":
            at = 5.0 + 2 * CONFIG.silence_s
    assert StepDown(heard.fence.ballot) in machine.receive(heard, NodeId("n1"), at)
    assert (machine.phase, machine.leader) == (Phase.FOLLOWING, "n1")


def test_where_no_leader_is_known_a_short_silence_is_doubt() -> None:
    machine = election("n0")
    machine.elected(fence(7, "n0"), 1.0)
    machine.deposed(2.0)
    assert machine.next_deadline() == pytest.approx(2.0 + CONFIG.silence_s)


# -- leading ---------------------------------------------------------------------------------------------


def test_a_leader_that_hears_a_higher_fence_steps_down_and_a_lower_one_is_ignored() -> None:
    machine = election("n0")
    machine.elected(fence(7, "n0"), 1.0)
    assert machine.receive(beat(5), NodeId("n1"), 1.1) == []
    effects = machine.receive(beat(9), NodeId("n1"), 1.2)
    assert isinstance(effects[0], StepDown)
    assert (machine.phase, machine.leader) == (Phase.FOLLOWING, "n1")


def test_a_leader_without_a_quorum_is_silent_until_it_has_one_again() -> None:
    machine = election("n0")
    assert len(machine.elected(fence(7, "n0"), 1.0)) == 2
    machine.renewed(fence(7, "n0"), steady=False, now=1.0)
    assert machine.tick(99.0) == []
    (answer,) = machine.receive(AskHearing(key=JOB, number=1), NodeId("n2"), 99.0)
    assert answer == SendTo(NodeId("n2"), silence(1))
    machine.renewed(fence(8, "n0"), steady=True, now=100.0)
    assert len(machine.tick(100.0 + CONFIG.heartbeat_s)) == 2


# -- all together ----------------------------------------------------------------------------------------


def job_bench(count: int = 3) -> Bench:
    bench = Bench(count, is_led=lambda key: key.startswith(JOB))
    bench.found(*range(min(count, 3)), key=JOB)
    for number in range(count):
        bench.introduce(number, 0, 1, 2, key=JOB)
    bench.advance(1.0)
    return bench


def leaders(bench: Bench) -> list[int]:
    """The nodes that lead, as far as they know."""
    return [
        host.number
        for host in bench.hosts
        if host.registers and JOB in host.registers.proposers and host.registers.proposers[JOB].leads
    ]


def suspect(bench: Bench, *numbers: int) -> None:
    """Tell all that these nodes are suspected."""
    suspected = {NodeId(f"n{number}") for number in numbers}
    for host in bench.hosts:
        if host.registers is not None:
            bench.perform(host.number, host.registers.observe(suspected, 0, bench.now))


def test_the_first_member_of_a_new_register_leads_it_at_once() -> None:
    bench = Bench(3, is_led=lambda key: key == JOB)
    bench.found(0, 1, 2, key=JOB)
    assert leaders(bench) == [0]
    assert [event.leader for event in bench.hosts[2].told(LeaderHeard)] == ["n0"]


def test_a_leader_that_is_well_is_never_replaced() -> None:
    bench = job_bench()
    bench.advance(60.0)
    assert leaders(bench) == [0]
    assert sum(len(host.told(Leads)) for host in bench.hosts) == 1


def test_a_dead_leader_is_replaced_once_by_the_next_in_rank_within_the_stated_time() -> None:
    bench = job_bench()
    bench.propose(0, append("a"), JOB)
    bench.advance(1.0)
    bench.kill(0)
    suspect(bench, 0)
    bench.advance(TAKEOVER_S)
    assert leaders(bench) == [1]
    (lead,) = bench.hosts[1].told(Leads)
    assert lead.record.payload == b"a"
    assert lead.fence > bench.hosts[0].told(Committed)[-1].fence
    bench.advance(30.0)
    assert leaders(bench) == [1]


def test_a_leader_that_restarts_at_once_is_replaced_though_nobody_suspects_it() -> None:
    bench = job_bench()
    bench.kill(0)
    bench.boot(0)
    bench.advance(CONFIG.desertion_s + 3 * CONFIG.stagger_s + 0.5)
    assert len(leaders(bench)) == 1


def test_a_member_that_alone_does_not_hear_the_leader_does_not_stop_it() -> None:
    bench = job_bench()
    bench.lost = lambda letter: letter.source == NodeId("n0") and letter.to == NodeId("n2")
    suspect(bench, 0)
    bench.advance(30.0)
    assert leaders(bench) == [0]
    assert not bench.hosts[0].told(Outbid)


def test_a_leader_that_is_outbid_while_it_is_heard_again_is_replaced_within_a_moment() -> None:
    bench = job_bench()
    n0, n1, n2 = (NodeId(f"n{number}") for number in range(3))
    bench.lost = lambda letter: letter.source == n0 or isinstance(letter.message, Promise)
    suspect(bench, 0)
    bench.advance(CONFIG.silence_s)
    assert any(isinstance(letter.message, Prepare) and letter.source == n1 for letter in bench.sent)
    # The promises are given and lost; the old leader is heard again, and cannot do anything any more.
    bench.lost = lambda letter: isinstance(letter.message, Promise) and letter.source in (n0, n2)
    bench.advance(1.5 * CONFIG.heartbeat_s)
    bench.lost = lambda _letter: False
    bench.propose(0, append("a"), JOB)
    suspect(bench)
    bench.advance(CONFIG.silence_s)
    assert len(leaders(bench)) == 1
    bench.propose(leaders(bench)[0], append("b"), JOB)
    bench.advance(0.5)
    assert "b" in bench.log(leaders(bench)[0], JOB)


def test_a_leader_that_is_cut_off_loses_the_lead_and_hears_of_it_when_it_is_back() -> None:
    bench = job_bench()
    bench.lost = lambda letter: NodeId("n0") in (letter.source, letter.to) and letter.source != letter.to
    suspect(bench, 0)
    bench.propose(0, append("lost"), JOB)
    bench.advance(5.0)
    assert leaders(bench) == [0, 1]  # it can't know; but it can do nothing either
    assert bench.hosts[0].told(QuorumLost)
    assert not bench.hosts[0].told(Committed)
    bench.propose(1, append("a"), JOB)
    bench.advance(1.0)
    bench.lost = lambda _letter: False
    bench.advance(3.0)
    assert leaders(bench) == [1]
    assert len(bench.hosts[0].told(Outbid)) == 1
    assert bench.log(1, JOB) == "a"


def test_a_leader_hands_a_dead_members_place_on_and_leads_the_new_group() -> None:
    bench = job_bench(4)
    bench.kill(2)
    bench.perform(0, bench[0].seal(JOB, members(0, 1, 3), bench.now))
    bench.advance(2.0)
    assert leaders(bench) == [0]
    assert bench.hosts[0].told(GroupChanged)[-1].group.members == members(0, 1, 3)
    assert bench[3].leader(JOB) == bench[1].leader(JOB) == "n0"
    bench.kill(0)
    suspect(bench, 0)
    bench.advance(TAKEOVER_S)
    assert leaders(bench) == [1]


def test_with_a_terminal_record_nobody_leads_and_nobody_stands() -> None:
    bench = job_bench()
    bench.propose(0, append("END"), JOB)
    bench.advance(60.0)
    assert sum(len(host.told(Leads)) for host in bench.hosts) == 1
    assert all(JOB not in bench[number].elections for number in (1, 2))
    for number in range(3):
        bench.kill(number)
        bench.boot(number)
    bench.advance(60.0)
    assert leaders(bench) == []


def test_after_all_were_killed_the_restarted_elect_a_leader_that_knows_everything() -> None:
    bench = job_bench()
    bench.propose(0, append("a"), JOB)
    bench.advance(1.0)
    for number in range(3):
        bench.kill(number)
    for number in range(3):
        bench.boot(number)
    bench.advance(CONFIG.desertion_s + TAKEOVER_S)
    (leader,) = leaders(bench)
    assert bench.hosts[leader].told(Leads)[-1].record.payload == b"a"


def test_a_lone_member_leads_itself() -> None:
    bench = Bench(1, is_led=lambda _key: True)
    bench.found(0, key=JOB)
    assert leaders(bench) == [0]
    bench.propose(0, append("a"), JOB)
    bench.advance(0.1)
    assert bench.log(0, JOB) == "a"


def test_keys_without_a_leader_have_no_election() -> None:
    bench = Bench(3)
    bench.found(0, 1, 2, key="lock")
    bench.advance(10.0)
    assert all(not bench[number].elections for number in range(3))
    assert bench[1].next_deadline() == float("inf")


def test_the_founder_of_another_generation_does_not_lead_the_old_one_any_more() -> None:
    bench = job_bench(4)
    record = Record(generation=1, epoch=0, members=(acceptor(0), acceptor(1), acceptor(3)))
    bench.perform(0, bench[0].found(JOB, record, bench.now))
    bench.advance(5.0)
    (leader,) = leaders(bench)
    assert bench.hosts[leader].told(Leads)[-1].fence.place == Place(1, 0)
    assert replace(record, payload=b"").place == Place(1, 0)
