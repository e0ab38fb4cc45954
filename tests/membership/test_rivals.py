"""Hearsay about a second process with our id: it is asked before we give way to it."""

from __future__ import annotations

import random
from dataclasses import replace

from membership.config import LOCAL
from membership.effects import Announce, ConflictingIdentity, Effect, Persist, Send
from membership.messages import Conflict, Gossip, Rumour, SyncRequest
from membership.swim import Swim
from membership.view import Member, NodeId, Status

ME = Member(NodeId("me"), "host:1", incarnation=2, session=10)
FRIEND = Member(NodeId("friend"), "host:2", session=5)
RIVAL = replace(ME, address="host:9", incarnation=3, session=20)


def admitted_peer() -> Swim:
    peer = Swim(me=ME, config=LOCAL, rng=random.Random(1), known=[ME, FRIEND])
    peer.start(0.0)
    return peer


def questions(effects: list[Effect]) -> int:
    return sum(
        isinstance(effect, Send)
        and effect.to_address == RIVAL.address
        and isinstance(effect.message, SyncRequest)
        for effect in effects
    )


def test_a_rival_that_only_others_speak_of_is_asked_and_outbid_when_it_stays_silent() -> None:
    """It was refused at one door and admitted at another: were hearsay enough, both would stop."""
    peer = admitted_peer()
    effects = peer.receive(Gossip(rumours=(Rumour(member=RIVAL),)), FRIEND.id, 0.01)
    assert questions(effects) == 1
    now = 0.01
    while peer.me == ME and now < 5.0:
        assert not peer.stopped
        now = max(peer.next_deadline(), now)
        effects += peer.tick(now)
    assert questions(effects) == LOCAL.challenge_pings
    assert peer.me.incarnation == 4
    assert peer.me.session > RIVAL.session
    assert Persist(4, peer.me.session) in effects
    assert peer.view.get(ME.id) == replace(ME, incarnation=4, session=peer.me.session, status=Status.ALIVE)


def test_two_processes_that_outbid_the_same_record_do_not_get_the_same_session() -> None:
    """With equal sessions they would count as one process, and take the id from each other for ever."""
    sessions = set()
    for address in ("host:1", "host:7"):
        me = replace(ME, address=address)
        peer = Swim(me=me, config=LOCAL, rng=random.Random(1), known=[me, FRIEND])
        peer.start(0.0)
        peer.receive(Gossip(rumours=(Rumour(member=replace(RIVAL, status=Status.DEAD)),)), FRIEND.id, 0.01)
        assert peer.me.session > RIVAL.session
        sessions.add(peer.me.session)
    assert len(sessions) == 2


def test_a_rival_that_answers_keeps_the_id() -> None:
    peer = admitted_peer()
    peer.receive(Gossip(rumours=(Rumour(member=RIVAL),)), FRIEND.id, 0.01)
    effects = peer.receive(Conflict(session=ME.session, holder=RIVAL), ME.id, 0.02)
    assert Announce(ConflictingIdentity(ME, RIVAL)) in effects
    assert peer.stopped
