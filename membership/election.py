"""Who tries to lead a key, and when: one member's part in it.

Theory of operation
-------------------
To lead is to be the one proposer that nobody outbids (`membership.proposer`). Any number of nodes may try at
once without harm, but not without cost: each takeover stops the one before. So this machine makes it likely
that one tries, and that nobody does while a leader is well. It decides nothing: all of it may be wrong at any
time, and the registers stay right (point 7 of `membership.register`).

=========  ======================================================  =========  ============================
phase      what happens                                            next       what is done
=========  ======================================================  =========  ============================
FOLLOWING  the leader is silent for `silence_s`, and suspected by  DOUBTING   wait for our turn: rank times
           membership, or no leader is known; or silent for                   `stagger_s`; if we are ill,
           `desertion_s`; or nobody ever led                                  after all others
DOUBTING   our turn                                                POLLING    ask all members whom they hear
POLLING    a majority, ourselves included, hears nobody            STANDING   tell the proposer to lead
POLLING    so many hear somebody that no majority hears nobody     FOLLOWING  the silence is ours alone
POLLING    `poll_timeout_s` passes                                 DOUBTING   another turn later
STANDING   the proposer leads                                      LEADING    a heartbeat each `heartbeat_s`
STANDING   a heartbeat of a leader below our ballot, for a while   STANDING   it is outbid, or about to be
any but    a heartbeat, or a poll's answer, of a leader whose      FOLLOWING  proposer, stop trying
LEADING    fence is not lower than the last one's
LEADING    the same, with a fence above ours                       FOLLOWING  proposer, stop
LEADING,   the proposer was outbid, or gave up                     FOLLOWING
STANDING
=========  ======================================================  =========  ============================

*Rank* is the place among the members, which stand in ring order, counted from the leader that is gone: the
one behind it is the first. *Two reasons to doubt,* because either alone is wrong too often: membership hears
the process, not its leadership (a restarted leader is well and leads nothing), and heartbeats alone would
make every lost packet a takeover. *The poll* keeps a member that is cut off from the leader alone from
stopping it for all.

*Who has asked for a promise above the leader's ballot* does not take it back for a heartbeat that was under
way meanwhile: the promises are given, and whoever gave them refuses that leader from now on; both would be
out. Only when heartbeats still come `silence_s` later, the promises were not, and it stops trying.

A leader whose round gets no majority sends no heartbeats until one does: if others can do better, they
should. Illness is the local health score of `membership.awareness`.

Source: the poll is what Raft calls PreVote (D. Ongaro, "Consensus: Bridging Theory and Practice", 2014, 9.6);
standing in turns, rather than after random times, is Viewstamped Replication's order of views, made soft.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import assert_never

from membership.register import NO_BALLOT, AcceptorId, Ballot, Fence, Place, majority
from membership.register_config import RegisterConfig
from membership.register_effects import LeaderHeard, RegisterEffect, Report, SendTo
from membership.register_messages import AskHearing, ElectionMessage, Hearing, Heartbeat
from membership.view import NodeId

__all__ = ["Election", "ElectionEffect", "Phase", "Stand", "StepDown"]


class Phase(StrEnum):
    """Which part a member plays."""

    FOLLOWING = "following"
    DOUBTING = "doubting"
    POLLING = "polling"
    STANDING = "standing"
    LEADING = "leading"


@dataclass(frozen=True, slots=True)
class Stand:
    """Tell the proposer to lead, above this ballot."""

    above: Ballot


@dataclass(frozen=True, slots=True)
class StepDown:
    """Tell the proposer to lead no more, or to stop trying: there is a leader with this ballot."""

    by: Ballot


ElectionEffect = RegisterEffect | Stand | StepDown
"""Everything an election returns; `membership.registers` performs the last two."""


class Election:
    """One member's view of who leads a key.

    Args:
        key: which register.
        me: our node.
        place: of the group.
        members: of the group, in ring order.
        config: times.
        now: in seconds; silence is counted from here.
        nobody_led: the key has only just been born, so there is no leader to wait for.
    """

    def __init__(
        self,
        *,
        key: str,
        me: NodeId,
        place: Place,
        members: Sequence[AcceptorId],
        config: RegisterConfig,
        now: float,
        nobody_led: bool = False,
    ) -> None:
        self.key = key
        self.phase = Phase.FOLLOWING
        self.leader: NodeId | None = None
        self.fence: Fence | None = None  # of that leader
        self._me = me
        self.place = place
        self._members = tuple(members)
        self._config = config
        self._heard_at = -inf if nobody_led else now
        self._suspected: frozenset[NodeId] = frozenset()
        self._health = 0
        self._turn_at = inf  # when our turn to poll has come, while DOUBTING
        self._poll_until = inf
        self._poll = 0
        self._silent: set[NodeId] = set()  # members that hear nobody, in this poll
        self._hearing: set[NodeId] = set()  # members that hear somebody
        self._beat_at = inf
        self._stood_at = -inf
        self._asked: Fence | None = None  # what our proposer has asked to be promised, while STANDING

    # ------------------------------------------------------------------ what the owner tells

    def observe(self, suspected: Collection[NodeId], health: int, now: float) -> list[ElectionEffect]:
        """Take note of what membership believes.

        Args:
            suspected: nodes that are suspected, dead or gone, or that have begun another life.
            health: our own awareness score; 0 is well.
            now: in seconds.
        """
        self._suspected = frozenset(suspected)
        self._health = health
        return self.tick(now)

    def group_is(self, place: Place, members: Sequence[AcceptorId]) -> None:
        """A later group keeps the key; its leader is still the one we hear."""
        if place > self.place:
            self.place, self._members = place, tuple(members)

    def asks(self, fence: Fence | None) -> None:
        """Our proposer, which tries to lead, has asked for this to be promised; None: it rests."""
        self._asked = fence

    def elected(self, fence: Fence, now: float) -> list[ElectionEffect]:
        """Our proposer leads, with this fence."""
        self.phase = Phase.LEADING
        self.leader, self.fence, self._heard_at = self._me, fence, now
        return self._beat(now)

    def renewed(self, fence: Fence, *, steady: bool, now: float) -> None:
        """Our proposer still leads; `steady` is whether its last round had a majority in time."""
        self.fence = fence
        self._beat_at = min(self._beat_at, now + self._config.heartbeat_s) if steady else inf

    def deposed(self, now: float) -> list[ElectionEffect]:
        """Our proposer leads no more, or has given up trying."""
        if self.phase in (Phase.LEADING, Phase.STANDING):
            # Whoever outbid us deserves the time to say so.
            self._follow(None, now)
        return []

    # ------------------------------------------------------------------ what the shell calls

    def receive(self, message: ElectionMessage, sender: NodeId, now: float) -> list[ElectionEffect]:
        """Take what another member says.

        Args:
            message: what it says.
            sender: who it is.
            now: in seconds.
        """
        match message:
            case Heartbeat():
                self.group_is(message.fence.place, message.members)
                return self._hear(sender, message.fence, now)
            case AskHearing():
                return [SendTo(sender, self._whom_we_hear(message.number, now))]
            case Hearing():
                return self._on_hearing(message, sender, now)
            case _:
                assert_never(message)

    def tick(self, now: float) -> list[ElectionEffect]:
        """Do what is due at `now` (seconds)."""
        match self.phase:
            case Phase.FOLLOWING:
                if self._doubts(now):
                    self.phase = Phase.DOUBTING
                    self._turn_at = now + self._turn_s()
                    return self.tick(now)
            case Phase.DOUBTING:
                if not self._doubts(now):
                    self.phase = Phase.FOLLOWING
                elif self._turn_at <= now:
                    return self._ask(now)
            case Phase.POLLING:
                if self._poll_until <= now:
                    self.phase = Phase.DOUBTING
                    self._turn_at = now + self._config.stagger_s + self._turn_s()
            case Phase.LEADING:
                if self._beat_at <= now:
                    return self._beat(now)
            case Phase.STANDING:
                pass
            case _:
                assert_never(self.phase)
        return []

    def next_deadline(self) -> float:
        """When to be ticked again (seconds)."""
        match self.phase:
            case Phase.FOLLOWING:
                return self._doubt_at()
            case Phase.DOUBTING:
                return self._turn_at
            case Phase.POLLING:
                return self._poll_until
            case Phase.LEADING:
                return self._beat_at
            case Phase.STANDING:
                return inf
            case _:
                assert_never(self.phase)

    # ------------------------------------------------------------------ doubting

    def _doubt_at(self) -> float:
        """When silence becomes doubt."""
        config = self._config
        alone = self.leader is None or self.leader in self._suspected
        return self._heard_at + (config.silence_s if alone else config.desertion_s)

    def _doubts(self, now: float) -> bool:
        return self._doubt_at() <= now

    def _hears(self, now: float) -> bool:
        # A heartbeat less than what makes us doubt: who doubts first must not be told that others still hear,
        # only because the last heartbeat reached them a moment later.
        patience_s = self._config.silence_s - self._config.heartbeat_s
        return self.leader is not None and now - self._heard_at < patience_s

    def _turn_s(self) -> float:
        """How long to wait for those who stand before us."""
        nodes = [member.node for member in self._members]
        count = len(nodes)
        if self._me not in nodes:
            turn = count
        elif self.leader in nodes:
            turn = (nodes.index(self._me) - nodes.index(self.leader) - 1) % count
        else:
            turn = nodes.index(self._me)
        if self._health >= self._config.ill_health:
            turn += count
        return turn * self._config.stagger_s

    # ------------------------------------------------------------------ polling

    def _ask(self, now: float) -> list[ElectionEffect]:
        self.phase = Phase.POLLING
        self._poll += 1
        self._poll_until = now + self._config.poll_timeout_s
        self._silent, self._hearing = set(), set()
        question = AskHearing(key=self.key, number=self._poll)
        out: list[ElectionEffect] = [
            SendTo(member.node, question) for member in self._members if member.node != self._me
        ]
        return out + self._count(self._me, hears=False, now=now)

    def _whom_we_hear(self, number: int, now: float) -> Hearing:
        leads = self.phase is Phase.LEADING and self._beat_at < inf
        heard = leads or self._hears(now)
        return Hearing(
            key=self.key,
            number=number,
            leader=self.leader if heard else None,
            fence=self.fence if heard else None,
        )

    def _on_hearing(self, message: Hearing, sender: NodeId, now: float) -> list[ElectionEffect]:
        if self.phase is not Phase.POLLING or message.number != self._poll:
            return []
        if message.leader == self._me:
            return self._count(sender, hears=False, now=now)  # what it heard was our former life
        news = message.fence is not None and (self.fence is None or message.fence > self.fence)
        if message.leader is not None and message.fence is not None and (news or message.leader == sender):
            return self._hear(message.leader, message.fence, now)
        return self._count(sender, hears=message.leader is not None, now=now)

    def _count(self, node: NodeId, *, hears: bool, now: float) -> list[ElectionEffect]:
        nodes = {member.node for member in self._members}
        if node in nodes:
            (self._hearing if hears else self._silent).add(node)
        needed = majority(self._members)
        if len(self._silent) >= needed:
            self.phase = Phase.STANDING
            self._stood_at, self._asked = now, None
            return [Stand(NO_BALLOT if self.fence is None else self.fence.ballot)]
        if len(nodes) - len(self._hearing) < needed:
            self._follow(self.leader, now)
        return []

    # ------------------------------------------------------------------ leading, following

    def _beat(self, now: float) -> list[ElectionEffect]:
        assert self.fence is not None
        self._beat_at = now + self._config.heartbeat_s
        beat = Heartbeat(key=self.key, fence=self.fence, members=self._members)
        return [SendTo(member.node, beat) for member in self._members if member.node != self._me]

    def _hear(self, leader: NodeId, fence: Fence, now: float) -> list[ElectionEffect]:
        """Somebody leads."""
        if leader == self._me or (self.fence is not None and fence < self.fence):
            return []
        if self._has_outbid(fence) and now < self._stood_at + self._config.silence_s:
            return []
        out: list[ElectionEffect] = []
        if self.phase in (Phase.LEADING, Phase.STANDING):
            out.append(StepDown(fence.ballot))
        if leader != self.leader or self.fence is None or fence.place != self.fence.place:
            out.append(Report(LeaderHeard(key=self.key, leader=leader, fence=fence)))
        self._follow(leader, now)
        self.fence = fence
        return out

    def _has_outbid(self, fence: Fence) -> bool:
        asked = self._asked if self.phase is Phase.STANDING else None
        return asked is not None and fence.place == asked.place and fence < asked

    def _follow(self, leader: NodeId | None, now: float) -> None:
        self.phase = Phase.FOLLOWING
        self.leader = leader
        self._heard_at = now
        self._beat_at = inf
