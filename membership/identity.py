"""Who we are: our own record, refuting what is said of it, and keeping our id, or another's, to one process.

What others believe of us comes back to us, and only we can put it right: a record that outbids ours is outbid
in turn, by an incarnation one above it. Which process an id belongs to is decided as `door` says; this module
asks the questions and draws the conclusions.

Our own part in that has three states. Until a peer that we asked holds our record, we are at the door: a
process with our id that is alive has the better right, and a dead one's line is simply continued. Then we are
admitted: now a process with a smaller session is our zombie, and is told. And when a rival is shown to be
alive and in the right, we are refused: the machine stops, and its peer has to.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b

from membership.awareness import Awareness
from membership.beliefs import Beliefs
from membership.config import SwimConfig
from membership.door import Challenge, Door, must_be_challenged
from membership.effects import Announce, ConflictingIdentity, Effect, Persist, SelfRefuted, Send
from membership.history import Cause, WhyEntry
from membership.messages import Conflict
from membership.view import Member, NodeId, Status, supersedes
from membership.voice import Voice

__all__ = ["Identity"]

SESSION_JITTER = 1024


def _jitter(me: Member) -> int:
    """Part two processes that outbid the same record: with equal sessions they would count as one."""
    data = f"{me.address} {me.pid} {me.session}".encode()
    return int.from_bytes(blake2b(data, digest_size=2).digest(), "big") % SESSION_JITTER


class Identity:
    """Our own identity, and the door to everybody else's.

    Args:
        beliefs: where our own record is kept.
        voice: to ask with.
        awareness: our health; having to refute harms it.
        config: settings.
        admitted: whether others know us as we are from the start.

    Attributes:
        door: the claims under examination.
        refused: whether our id belongs to another process; nothing more may be said then.
        leaving: whether we have said goodbye; nothing is refuted any more.
    """

    def __init__(
        self, *, beliefs: Beliefs, voice: Voice, awareness: Awareness, config: SwimConfig, admitted: bool
    ) -> None:
        self._beliefs = beliefs
        self._voice = voice
        self._awareness = awareness
        self._config = config
        self._admitted = admitted
        self.door = Door(config.challenges_max)
        self.refused = False
        self.leaving = False

    # What is said of us.

    def hear(self, record: Member, accusers: tuple[NodeId, ...], now: float, out: list[Effect]) -> None:
        """Take a belief about us: is it us, and is it better than what we say ourselves?"""
        me = self._beliefs.me
        if self.refused:
            return
        if record.session == me.session and record.address == me.address:
            self._admitted = True
        if self.leaving or record == me:
            return
        if record.incarnation < me.incarnation:
            # Old news of us go about, or somebody missed the new ones: as long as that is so, we repeat.
            self._beliefs.repeat(me)
            return
        if (
            record.session > me.session
            and self._admitted
            and record.status.in_ring
            and supersedes(record, me)
        ):
            self._question(record, now, out)
            return
        # Only we may raise our incarnation: it outbids whatever is said of us. A greater session is that of a
        # former holder of our id, dead or not yet examined by the door: we continue its line.
        self._outbid(record, out)
        if record.status is not Status.ALIVE:
            if record.session == me.session:
                self._awareness.worsen(1)  # said of this process, not of one that is gone
            me = self._beliefs.me
            out.append(Announce(SelfRefuted(me.incarnation, record.status, accusers)))
            entry = WhyEntry(
                at_s=now, cause=Cause.REFUTED, by=accusers, status=me.status, incarnation=me.incarnation
            )
            self._beliefs.history.add(me.id, entry)

    def _outbid(self, record: Member, out: list[Effect]) -> None:
        me = self._beliefs.me
        session = me.session if record.session <= me.session else record.session + 1 + _jitter(me)
        me = replace(me, incarnation=max(me.incarnation, record.incarnation) + 1, session=session)
        self._beliefs.become(me)
        out.append(Persist(me.incarnation, me.session))

    # Who else has our id.

    def meet_double(self, double: Member, out: list[Effect]) -> None:
        """Another process speaks to us under our own id."""
        me = self._beliefs.me
        if double.session < me.session and not self._admitted:
            self._give_way(double, out)
        else:
            out.append(Send(double.address, double.id, Conflict(session=double.session, holder=me)))

    def hear_conflict(self, conflict: Conflict, out: list[Effect]) -> None:
        """Our id is said to belong to another process, which is alive."""
        me, holder = self._beliefs.me, conflict.holder
        if conflict.session != me.session or holder.id != me.id or self.leaving or self.refused:
            return
        if self._admitted and holder.session < me.session:
            # We were admitted while it could not be reached: it is our own zombie, and must be told.
            out.append(Send(holder.address, holder.id, Conflict(session=holder.session, holder=me)))
        elif holder.session != me.session:
            self._give_way(holder, out)

    def _give_way(self, holder: Member, out: list[Effect]) -> None:
        self.refused = True
        out.append(Announce(ConflictingIdentity(self._beliefs.me, holder)))

    # Who comes to the door.

    def is_doubtful(self, claimant: Member) -> bool:
        """Return whether a peer's own claim has to wait for the silence of another holder of its id."""
        holder = self._beliefs.members.get(claimant.id)
        return must_be_challenged(claimant, holder) and supersedes(claimant, holder)

    def challenge(self, claimant: Member, now: float, out: list[Effect]) -> None:
        """Examine a doubtful claim, unless one to this id is examined already."""
        holder = self._beliefs.members.get(claimant.id)
        assert holder is not None, "a claim to an id that nobody holds is not doubtful"
        self._begin(claimant, holder, now, out)

    def _question(self, rival: Member, now: float, out: list[Effect]) -> None:
        """It is said that a younger process holds our id: examine our own claim."""
        self._begin(self._beliefs.me, rival, now, out)

    def _begin(self, claimant: Member, holder: Member, now: float, out: list[Effect]) -> None:
        if claimant.id in self.door:
            return
        due_s = now + self._config.probe_timeout_s
        examination = Challenge(claimant, holder, self._voice.next_number(), 1, due_s)
        if self.door.put(examination):
            out.append(self._ask(examination))

    def _ask(self, examination: Challenge) -> Send:
        holder = examination.holder
        if holder.id == self._beliefs.me.id:
            # It answers a message under its own id not with an ack, but with a `Conflict`.
            return Send(holder.address, holder.id, self._voice.sync_request())
        return self._voice.ping(holder, examination.number)

    def hear_holder(self, number: int, out: list[Effect]) -> None:
        """The holder of an id has answered: the claimant is refused. Other numbers are ignored."""
        examination = self.door.answered(number)
        if examination is not None:
            claimant = examination.claimant
            refusal = Conflict(session=claimant.session, holder=examination.holder)
            out.append(Send(claimant.address, claimant.id, refusal))

    def examine_due(self, now: float, out: list[Effect]) -> None:
        """Ask silent holders again, and admit the claimants to whose ids nobody answers."""
        for examination in self.door.pop_due(now):
            if examination.pings < self._config.challenge_pings:
                due_s = now + self._config.probe_timeout_s
                self.door.put(replace(examination, pings=examination.pings + 1, due_s=due_s))
                out.append(self._ask(examination))
            elif examination.claimant.id == self._beliefs.me.id:
                self._outbid(examination.holder, out)
            else:
                claimant = examination.claimant
                self._beliefs.hear(claimant, (), now, out)
                out.append(Send(claimant.address, claimant.id, self._voice.sync_request()))
