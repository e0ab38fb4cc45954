"""One commit of a job's record by a group of three in memory, and what it costs to sync a vote to disk."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import replace
from pathlib import Path

from pytest_benchmark.fixture import BenchmarkFixture

from membership.acceptor import Vote, encode_vote
from membership.register import AcceptorId, Ballot, Record
from membership.register_config import LOCAL_REGISTER
from membership.register_effects import Committed, RegisterEffect, Report, Save, SendTo
from membership.registers import Registers
from membership.view import NodeId
from p2p.votes import VoteStore

KEY = "0123456789abcdef"
GROUP = tuple(AcceptorId(NodeId(f"node-{number}"), "disk") for number in range(3))
FIRST = Record(generation=0, epoch=0, members=GROUP, payload=bytes(4_096))
NOW_S = 1_000.0
# Time stands still here, so nothing waits for more to commit along with it.
AT_ONCE = replace(LOCAL_REGISTER, batch_s=0.0)


class Swarm:
    """Three nodes whose messages arrive at once; what is saved is encoded, as for a disk, and counted."""

    def __init__(self) -> None:
        self.nodes = {
            member.node: Registers(
                me=member, life=1, config=AT_ONCE, rng=random.Random(member.node), now=NOW_S
            )
            for member in GROUP
        }
        self.leader = GROUP[0].node
        self.saves = 0
        self.committed: list[Record] = []
        self.perform(self.leader, self.nodes[self.leader].found(KEY, FIRST, NOW_S))
        self.perform(self.leader, self.nodes[self.leader].lead(KEY, NOW_S))

    def perform(self, node: NodeId, effects: list[RegisterEffect]) -> None:
        """Perform effects, and those of the messages among them, until nothing is under way."""
        waiting = deque((node, effect) for effect in effects)
        while waiting:
            source, effect = waiting.popleft()
            match effect:
                case SendTo(to, message):
                    more = self.nodes[to].receive(message, source, NOW_S)
                    waiting.extend((to, each) for each in more)
                case Save():
                    self.saves += 1
                case Report(event=Committed(record=record)):
                    self.committed.append(record)
                case _:
                    pass

    def commit(self, payload: bytes) -> None:
        """Let the leader change the record."""
        _, effects = self.nodes[self.leader].propose(KEY, lambda _: payload, NOW_S)
        self.perform(self.leader, effects)


def test_commit_a_change_of_a_record(benchmark: BenchmarkFixture) -> None:
    swarm = Swarm()
    done = 0

    def commit() -> None:
        nonlocal done
        done += 1
        swarm.commit(done.to_bytes(4_096, "big"))

    benchmark(commit)
    assert len(swarm.committed) == done
    assert int.from_bytes(swarm.committed[-1].payload, "big") == done
    assert swarm.saves >= 2 * done  # by a majority at least


def test_save_a_vote(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    votes = VoteStore(str(tmp_path))
    ballot = Ballot(1, GROUP[0].node, 1)
    state = encode_vote(Vote(ballot, ballot, FIRST))
    benchmark(votes.save, KEY, state)
    assert votes.load() == {KEY: state}
