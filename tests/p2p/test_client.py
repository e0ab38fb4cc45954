"""The client: it goes on with another peer, and says why when there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from p2p import client as client_module
from p2p.client import Client
from p2p.errors import NameNotResolved, NoPeerReached
from p2p.key_source import KeySource
from p2p.keys import KeySet, generate
from p2p.questions import AskMembers, MembersAre
from p2p.swarm import LocalPeers
from p2p.zmq_transport import new_key_pair
from tools.measure_membership import Watchtower


@pytest.fixture
def keys(local: LocalPeers, tower: Watchtower, keys_directory: Path) -> KeySet:
    return KeySource(directory=keys_directory).load().keys


@pytest.fixture
def nobody() -> Iterator[Client]:
    with Client(generate("c", new_key_pair), ["127.0.0.1:1", "127.0.0.1:2"], timeout_s=5.0) as made:
        yield made


def test_when_nobody_answers_each_address_has_its_reason(nobody: Client) -> None:
    with pytest.raises(NoPeerReached) as failure:
        nobody.ask(AskMembers(number=0), MembersAre)
    assert str(failure.value) == (
        "no peer reached (127.0.0.1:1: nobody answers there; 127.0.0.1:2: nobody answers there)"
    )
    assert failure.value.exit_code == 3


def test_a_name_that_does_not_resolve_is_no_matter_while_another_address_does(
    keys: KeySet, local: LocalPeers
) -> None:
    with Client(keys, ["no-such-host.invalid", local.peers[0].address]) as asking:
        assert asking.ask(AskMembers(number=0), MembersAre).me == local.peers[0].id
    with pytest.raises(NameNotResolved):
        Client(keys, ["no-such-host.invalid"])


def test_after_a_failure_the_one_that_answered_is_asked_first(keys: KeySet, local: LocalPeers) -> None:
    with Client(keys, ["127.0.0.1:1", local.peers[0].address]) as asking:
        for _ in range(3):
            assert asking.ask(AskMembers(number=0), MembersAre).me == local.peers[0].id
        assert asking._addresses[0] == local.peers[0].address


def test_watching_goes_on_with_another_peer_when_the_watched_one_dies(
    keys: KeySet, local: LocalPeers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "RENEWAL_S", 0.1)
    victim, other = local.peers[-1], local.peers[0]
    with Client(keys, [victim.address, other.address], timeout_s=1.0) as watching:
        events = watching.watch()
        first = next(events)
        assert (first.event, first.node) == ("watching", victim.id)
        victim.process.kill()
        victim.process.wait()
        told = [next(events)]
        while told[-1].event != "died":
            told.append(next(events))
        assert (told[-1].node, [event.event for event in told].count("watching")) == (victim.id, 1)
        assert told[0].node == other.id
    local.peers.remove(victim)
    local.start(1)
