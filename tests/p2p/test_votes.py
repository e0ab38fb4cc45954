"""An acceptor's votes on disk: what a peer finds that has died in between, or whose disk has rotted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from membership.acceptor import Acceptor, Vote, encode_vote
from membership.errors import DamagedVote
from membership.register import AcceptorId, Ballot, Record
from membership.register_config import LOCAL_REGISTER
from membership.view import NodeId
from p2p.submissions import acceptor_of
from p2p.votes import VoteStore
from tests.p2p.memory_swarm import MemorySwarm

BALLOT = Ballot(1, NodeId("a"), 1)
MEMBERS = (AcceptorId(NodeId("a"), "00" * 8),)
VOTE = encode_vote(
    Vote(promised=BALLOT, accepted=BALLOT, record=Record(generation=0, epoch=0, members=MEMBERS))
)
VOTES = {f"job/{number}": b"a promise" for number in range(3)}


class Killed(BaseException):
    """The process dies here."""


def dying(monkeypatch: pytest.MonkeyPatch, name: str, calls: int) -> None:
    """Let so many calls of a function of `os` succeed; the next one is the process's last."""
    real = getattr(os, name)
    left = calls

    def once_more(*args: Any, **options: Any) -> Any:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        return real(*args, **options)

    monkeypatch.setattr(os, name, once_more)


@pytest.mark.parametrize("call", ["unlink", "fsync", "rename"])
@pytest.mark.parametrize("calls", range(len(VOTES) + 1))
def test_who_dies_while_it_begins_anew_never_comes_back_as_the_same_acceptor_with_fewer_votes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, calls: int
) -> None:
    store = VoteStore(str(tmp_path))
    for key, vote in VOTES.items():
        store.save(key, vote)
    before = store.disk
    dying(monkeypatch, call, calls)
    try:
        store.begin_anew()
    except Killed:
        pass
    monkeypatch.undo()
    found = VoteStore(str(tmp_path))
    if found.disk == before:
        assert found.load() == VOTES
    else:
        assert found.load() == {}


@pytest.mark.parametrize("place", range(len("job/1\n")))
def test_a_vote_whose_key_is_damaged_is_a_damaged_vote_and_not_another_keys(
    tmp_path: Path, place: int
) -> None:
    store = VoteStore(str(tmp_path))
    store.save("job/1", VOTE)
    (path,) = tmp_path.glob("*.vote")
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedVote):
        Acceptor(AcceptorId(NodeId("a"), store.disk), LOCAL_REGISTER, VoteStore(str(tmp_path)).load())


def test_votes_begun_anew_are_another_acceptors_and_none(tmp_path: Path) -> None:
    store = VoteStore(str(tmp_path))
    store.save("job/1", b"a promise")
    before = store.disk
    store.begin_anew()
    assert store.disk != before
    assert store.load() == {}
    assert VoteStore(str(tmp_path)).disk == store.disk


def test_a_peer_whose_votes_are_damaged_is_known_to_all_as_the_acceptor_that_it_is_now(
    tmp_path: Path,
) -> None:
    swarm = MemorySwarm(tmp_path)
    first, *_ = swarm.start("a", "b")
    swarm.crash("b")
    VoteStore(str(tmp_path / "b" / "votes")).save("job/1", b"what no acceptor has written")
    again = swarm.add("b", join=[first.peer.swim.me.address])
    assert swarm.run(10, swarm.agreed)
    swarm.run(1)
    known = first.peer.swim.get(NodeId("b"))
    assert known is not None
    assert acceptor_of(known) == again.engine.registers.me
    swarm.close()


def test_votes_that_are_found_are_on_disk_by_name_before_anybody_hears_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = VoteStore(str(tmp_path))
    with monkeypatch.context() as patched:
        dying(patched, "fsync", 1)  # behind the rename
        with pytest.raises(Killed):
            store.save("job/0", b"a promise")
    synced: list[os.stat_result] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    assert VoteStore(str(tmp_path)).load() == {"job/0": b"a promise"}
    assert [os.path.samestat(one, tmp_path.stat()) for one in synced] == [True]


def test_what_was_forgotten_is_remembered_as_such_and_a_line_that_was_torn_is_not(tmp_path: Path) -> None:
    store = VoteStore(str(tmp_path))
    for key in ("job/1", "job/2"):
        store.save(key, b"state")
        store.save(key, None)
    store.save("job/3", None)  # there was none
    with open(tmp_path / "forgotten", "ab") as file:
        file.write(b"job/")  # its writer died
    assert VoteStore(str(tmp_path)).forgotten() == ["job/1", "job/2"]
    store.save("job/4", b"state")
    store.save("job/4", None)
    again = VoteStore(str(tmp_path))
    assert again.forgotten() == ["job/1", "job/2", "job/4"]
    assert again.load() == {}


def test_of_too_many_that_were_forgotten_the_oldest_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2p.votes.MAX_FORGOTTEN", 2)
    store = VoteStore(str(tmp_path))
    for number in range(4):
        store.save(f"job/{number}", b"state")
        store.save(f"job/{number}", None)
    assert store.forgotten() == ["job/2", "job/3"]
    assert (tmp_path / "forgotten").read_text() == "job/2\njob/3\n"


def test_what_was_forgotten_does_not_grow_without_bound_in_one_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2p.votes.MAX_FORGOTTEN", 3)
    store = VoteStore(str(tmp_path))
    most = 0
    for number in range(20):
        store.save(f"job/{number}", b"state")
        store.save(f"job/{number}", None)
        most = max(most, len((tmp_path / "forgotten").read_text().splitlines()))
    assert most < 2 * 3
    assert store.forgotten() == ["job/17", "job/18", "job/19"]


def test_what_was_forgotten_on_purpose_stays_so_when_votes_are_begun_anew(tmp_path: Path) -> None:
    store = VoteStore(str(tmp_path))
    store.save("job/1", b"state")
    store.save("job/1", None)
    store.begin_anew()
    assert store.forgotten() == VoteStore(str(tmp_path)).forgotten() == ["job/1"]
