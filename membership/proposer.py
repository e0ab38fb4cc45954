"""The proposer: how one node reads and changes one register.

Theory of operation
-------------------
A proposer works for a queue of changes. It prepares once, then accepts as long as nobody outbids it: each
accept carries the promise for the next, so that while it *holds* a majority's promise a change takes one
round trip. Everything that waits when a round begins goes into that round, in order of arrival. What leads
from one phase to the next is the table of `membership.phases`; from one group to the next,
`membership.succession`.

*Answers count once.* They are kept by acceptor, and only those of this round's ballot, of this place, from
members of this group count. So it does not matter how often or in which order they come.

*A round is never given up for lack of answers:* its request is sent again, ever more slowly, for as long as
it takes, and `QuorumLost` says who is missing. The answer may have been yes.

*Outbid.* One refusal does not end a round, since the others may still be a majority; it ends when the rest is
no majority, or when the next sending is due. Two proposers that outbid each other rest for random times that
double. Who leads gives up at once, because somebody else was elected; who was never told that it leads, after
`outbids_max` in a row.

*Uncertainty.* A change whose round was cut short is applied again to whatever the next round finds (point 6
of `membership.register`).

*The unborn are helped.* An acceptor that says it is unborn is sent what another one accepted: that one's
birth, or the accept that it took, just as if it had been on its way all the time. So an epoch that was opened
by a proposer which died is completed by any other. If all who answer are unborn, whoever was born there is
gone: then the proposer goes back to the group before, which still holds the sealed record (until a majority
was born, nobody forgets it), and gives birth again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from math import inf

from membership.changes import Changes, Oversized
from membership.errors import InvalidGroup
from membership.phases import IN_A_ROUND, NEXT, Phase, Step
from membership.quorum import QuorumWatch
from membership.register import (
    NO_BALLOT,
    AcceptorId,
    Ballot,
    BallotSource,
    Change,
    Fence,
    Group,
    Record,
    derive,
    majority,
)
from membership.register_config import RegisterConfig
from membership.register_effects import (
    Abandoned,
    Committed,
    Founded,
    GroupChanged,
    Leads,
    Outbid,
    Refused,
    RegisterEffect,
    Report,
    SendTo,
)
from membership.register_messages import (
    Accept,
    Accepted,
    Answer,
    Birth,
    Born,
    Nack,
    Prepare,
    Promise,
    Unborn,
)
from membership.succession import Succession
from membership.tally import Tally

__all__ = ["Proposer"]


class Proposer:
    """One node's access to one register.

    Args:
        group: who keeps the key, as far as is known; a later group is learnt from the members.
        ballots: this life's ballots, shared by all proposers of the node.
        config: times and bounds.
        rng: for the rests.
        absorbs: whether a payload is terminal.
        before: a group that kept the key before, if one is known.
    """

    def __init__(
        self,
        *,
        group: Group,
        ballots: BallotSource,
        config: RegisterConfig,
        rng: random.Random,
        absorbs: Callable[[bytes], bool],
        before: Group | None = None,
    ) -> None:
        self.phase = Phase.IDLE
        self.leads = False
        self.record: Record | None = None  # what we last knew chosen
        self.fence: Fence | None = None  # of that record
        self._ballots = ballots
        self._config = config
        self._rng = rng
        self._absorbs = absorbs
        self._ballot = NO_BALLOT  # of the round under way; while HOLDING, the promise in hand
        self._promise = NO_BALLOT  # what the accept under way asks to be promised
        self._highest = NO_BALLOT  # seen anywhere
        self._groups = Succession(group, before)
        self._tally = self._new_tally(0.0)
        self._proposed: Record | None = None
        self._changes = Changes(config)
        self._outbids = 0
        self._wants_lead = False
        self._quorum = QuorumWatch(config.quorum_patience_s)
        self._rest_until = inf
        self._batch_at = inf

    # ------------------------------------------------------------------ what the owner calls

    @property
    def group(self) -> Group:
        """Who keeps the key, as far as is known."""
        return self._groups.group

    def found(self, record: Record, now: float) -> list[RegisterEffect]:
        """Bring the register to life: give `record` to a majority of its members, then report `Founded`.

        Only the founder of a key may do this, with one record for each generation; it may repeat it, from
        anywhere. If the register is found to exist already, `Founded` tells the group that keeps it.

        Raises:
            InvalidGroup: the record is sealed, or not of epoch 0.
        """
        if record.epoch or record.sealed:
            raise InvalidGroup(f"a register begins with an open record of epoch 0, not with {record}")
        known = self._groups.later_than(record.place)
        if known is not None:
            return [Report(Founded(group=known))]
        out = self._depose(None) if self._wants_lead else []
        self._cut_short()
        self._groups.found(record)
        self._go(Step.FOUND)
        return out + self._begin_round(now)

    def propose(self, change: Change, now: float) -> tuple[int, list[RegisterEffect]]:
        """Change the register, or read it (by a change that returns the payload as it is).

        Returns:
            The proposal's number, which `Committed`, `Refused` or `Abandoned` will bear, and effects.

        Raises:
            TooManyProposals: the queue is full.
        """
        number = self._changes.add(change)
        return number, self._go_on(now)

    def lead(self, now: float, *, above: Ballot = NO_BALLOT) -> list[RegisterEffect]:
        """Become the distinguished proposer: outbid everybody, read the register, and report `Leads`.

        Args:
            now: in seconds.
            above: a ballot known to be in use.
        """
        self._highest = max(self._highest, above)
        self._wants_lead = True
        return self._go_on(now)

    def resign(self, by: Ballot | None = None) -> list[RegisterEffect]:
        """Stop being, or becoming, the distinguished proposer; changes that wait are abandoned.

        Args:
            by: the ballot of the leader in whose favour we resign, if it is known.
        """
        return self._depose(by) if self._wants_lead else []

    def seal(self, members: Sequence[AcceptorId], now: float) -> list[RegisterEffect]:
        """End the present epoch in favour of `members`, and open the next; then comes `GroupChanged`.

        Nothing happens if the epoch is over when the request gets its turn.
        """
        self._groups.wish(members)
        return self._go_on(now)

    def learn(self, group: Group, now: float) -> list[RegisterEffect]:
        """Take note of who keeps the key; an earlier group than the one we know changes nothing."""
        return self._on_group(group, now)

    # ------------------------------------------------------------------ what the shell calls

    def receive(self, message: Answer | Group, now: float) -> list[RegisterEffect]:
        """Take an answer.

        Args:
            message: what an acceptor says; who it is stands in it.
            now: in seconds.
        """
        if isinstance(message, Group):
            return self._on_group(message, now)
        if message.place != self.group.place or message.acceptor not in self.group.members:
            return []
        match message:
            case Promise():
                return self._on_promise(message, now)
            case Accepted():
                return self._on_accepted(message, now)
            case Nack():
                return self._on_nack(message, now)
            case Born():
                return self._on_born(message, now)
            case Unborn():
                return self._on_unborn(message)

    def tick(self, now: float) -> list[RegisterEffect]:
        """Do what is due at `now` (seconds): send again, go on after a rest, begin a batch."""
        if self.phase in IN_A_ROUND and self._tally.resend_at <= now:
            return self._insist(now)
        if (self.phase is Phase.RESTING and self._rest_until <= now) or self._batch_at <= now:
            return self._go_on(now)
        return []

    def next_deadline(self) -> float:
        """When to be ticked again (seconds); infinity if there is nothing to wait for."""
        if self.phase in IN_A_ROUND:
            return self._tally.resend_at
        if self.phase is Phase.RESTING:
            return self._rest_until
        return self._batch_at

    @property
    def asks(self) -> Fence | None:
        """The place and ballot of the round under way, None while there is none."""
        asks = self.phase in (Phase.PREPARING, Phase.ACCEPTING)
        return Fence(self.group.place, self._ballot) if asks else None

    # ------------------------------------------------------------------ beginning rounds

    def _go(self, step: Step) -> None:
        self.phase = NEXT[self.phase, step]

    @property
    def _has_work(self) -> bool:
        wants_lead = self._wants_lead and not self.leads
        return bool(self._changes.waiting or self._groups.must_open or wants_lead or self._groups.is_wished)

    def _go_on(self, now: float) -> list[RegisterEffect]:
        """Begin what is to be done next, unless something is under way."""
        if not self._has_work:
            self._batch_at = inf
            if self.phase is Phase.RESTING:
                self._go(Step.GIVE_UP)
            return []
        match self.phase:
            case Phase.IDLE:
                return self._prepare(now)
            case Phase.RESTING if self._rest_until <= now:
                return self._prepare(now)
            case Phase.HOLDING:
                if self._should_wait_for_more(now):
                    return []
                assert self.record is not None
                return self._accept(self.record, Step.WANT, now)
        return []

    def _should_wait_for_more(self, now: float) -> bool:
        """Whether a round should begin later, with more changes in it."""
        if not self.leads or self._groups.is_wished or self._changes.waiting >= self._config.batch_max:
            return False
        self._batch_at = min(self._batch_at, now + self._config.batch_s)
        return now < self._batch_at

    def _prepare(self, now: float) -> list[RegisterEffect]:
        self._go(Step.WANT)
        self._ballot = self._ballots.above(self._highest)
        return self._begin_round(now)

    def _accept(self, base: Record, step: Step, now: float) -> list[RegisterEffect]:
        """Propose what the waiting changes make of `base`."""
        self._go(step)
        self._batch_at = inf
        record, dropped = self._changes.apply(base, self._derive)
        self._proposed = self._groups.fulfil(record)
        self._highest = max(self._highest, self._ballot)
        self._promise = self._ballots.above(self._highest)
        return [*map(self._refuse, dropped), *self._begin_round(now)]

    def _derive(self, record: Record, change: Change) -> Record:
        return derive(record, change, self._absorbs)

    def _refuse(self, change: Oversized) -> Report:
        return Report(
            Refused(
                key=self.group.key,
                proposal=change.number,
                payload_bytes=change.payload_bytes,
                payload_bytes_max=self._config.payload_bytes_max,
            )
        )

    def _begin_round(self, now: float) -> list[RegisterEffect]:
        self._tally = self._new_tally(now)
        return self._ask(self.group.members)

    def _new_tally(self, now: float) -> Tally:
        return Tally(
            self.group.members,
            now,
            interval_s=self._config.retransmit_s,
            interval_max_s=self._config.retransmit_max_s,
        )

    def _ask(self, members: Iterable[AcceptorId]) -> list[RegisterEffect]:
        """Send the request of this round."""
        return [SendTo(member.node, self._request(member)) for member in members]

    def _request(self, to: AcceptorId) -> Prepare | Accept | Birth:
        key = self.group.key
        if self.phase is Phase.PREPARING:
            return Prepare(key=key, place=self.group.place, ballot=self._ballot, to=to)
        if self.phase is Phase.ACCEPTING:
            assert self._proposed is not None
            return Accept(key=key, ballot=self._ballot, promise=self._promise, record=self._proposed, to=to)
        birth = self._groups.birth
        assert birth is not None
        return Birth(key=key, record=birth, to=to)

    # ------------------------------------------------------------------ answers

    def _on_promise(self, message: Promise, now: float) -> list[RegisterEffect]:
        if self.phase is not Phase.PREPARING or message.ballot != self._ballot:
            return []
        if message.record.place != message.place or message.record.members != self.group.members:
            return []  # two founders: that acceptor votes in the other one's group
        self._highest = max(self._highest, message.accepted)
        if not self._counts(message):
            return [*self._tally.help_the_unborn()]
        best = self._best_promise()
        assert best is not None
        return self._accept(best.record, Step.PROMISED, now)

    def _best_promise(self) -> Promise | None:
        return self._tally.best_promise()

    def _counts(self, vote: Promise | Accepted | Born) -> bool:
        """Count a vote; return whether it made a majority."""
        self._tally.votes[vote.acceptor] = vote
        return len(self._tally.votes) >= self._needed

    def _on_accepted(self, message: Accepted, now: float) -> list[RegisterEffect]:
        if self.phase is Phase.PREPARING:
            return self._ask_the_newborn(message.acceptor)
        if self.phase is not Phase.ACCEPTING or message.ballot != self._ballot:
            return []
        return self._on_chosen(now) if self._counts(message) else []

    def _on_chosen(self, now: float) -> list[RegisterEffect]:
        record = self._proposed
        assert record is not None
        self.record = record
        self.fence = Fence(record.place, self._ballot)
        self._groups.settle()
        self._outbids = 0
        out = self._tell_chosen(record, self.fence)
        if record.sealed:
            self._go(Step.SEALED)
            self._groups.follow(record)
            return out + self._begin_round(now)
        self._go(Step.CHOSEN)
        self._ballot = self._promise
        self._groups.opened()
        return out + self._go_on(now)

    def _tell_chosen(self, record: Record, fence: Fence) -> list[RegisterEffect]:
        key = self.group.key
        out: list[RegisterEffect] = [*self._quorum.found(key)]
        if self._groups.note_place(record.place):
            out.append(Report(GroupChanged(group=self.group)))
            self.leads = False  # under a new fence, so it is told again
        if self._wants_lead and not self.leads:
            self.leads = True
            out.append(Report(Leads(key=key, record=record, fence=fence)))
        out += [
            Report(Committed(key=key, proposal=number, record=after, fence=fence))
            for number, after in self._changes.finish()
        ]
        return out

    def _on_born(self, message: Born, now: float) -> list[RegisterEffect]:
        if self.phase is Phase.PREPARING:
            return self._ask_the_newborn(message.acceptor)
        if self.phase is not Phase.FOUNDING:
            return []
        if not self._counts(message):
            return []
        self._go(Step.BORN)
        self._groups.settle()
        out: list[RegisterEffect] = [*self._quorum.found(self.group.key)]
        if self._groups.end_founding():
            self._groups.note_place(self.group.place)  # Founded tells it
            out.append(Report(Founded(group=self.group)))
        elif self.record is not None:
            # Whoever comes to the old members shall find the new ones.
            gone = [member for member in self.record.members if member not in self.group.members]
            out += [SendTo(member.node, self.group) for member in gone]
        return out + self._go_on(now)

    def _on_unborn(self, message: Unborn) -> list[RegisterEffect]:
        if self.phase is not Phase.PREPARING:
            return []
        self._tally.is_unborn(message)
        return [*self._tally.help_the_unborn()]

    def _ask_the_newborn(self, acceptor: AcceptorId) -> list[RegisterEffect]:
        """Who was unborn when we asked for its promise, and was helped, is asked again."""
        return self._ask([acceptor]) if self._tally.is_born(acceptor) else []

    def _on_nack(self, message: Nack, now: float) -> list[RegisterEffect]:
        self._highest = max(self._highest, message.promised)
        if self.phase not in (Phase.PREPARING, Phase.ACCEPTING) or message.ballot != self._ballot:
            return []
        self._tally.refusals[message.acceptor] = message.promised
        if len(self.group.members) - len(self._tally.refusals) >= self._needed:
            return []
        return self._be_outbid(now)

    def _on_group(self, message: Group, now: float) -> list[RegisterEffect]:
        if not self._groups.supersedes(message):
            return []
        out: list[RegisterEffect] = []
        if self._groups.end_founding():
            out.append(Report(Founded(group=message)))
        if self.leads:
            out += self._depose(None)
        self._move_to(message)
        return out + self._go_on(now)

    # ------------------------------------------------------------------ misfortune

    def _insist(self, now: float) -> list[RegisterEffect]:
        """A round has got no majority for a while: send again, or see that it can't succeed."""
        tally = self._tally
        if tally.refusals:
            return self._be_outbid(now)
        if (
            self.phase is Phase.PREPARING
            and tally.all_unborn
            and (earlier := self._groups.before(tally.earlier))
        ):
            self._move_to(earlier)
            return self._go_on(now)
        tally.postpone(now)
        lost = self._quorum.lacks(self.group, tally, self._needed, now)
        return [*lost, *self._ask(tally.missing)]

    def _be_outbid(self, now: float) -> list[RegisterEffect]:
        self._outbids += 1
        if self.leads or self._outbids > self._config.outbids_max:
            return self._depose(self._highest) if self._wants_lead else self._give_up()
        self._changes.take_back()
        self._go(Step.OUTBID)
        longest_s = min(self._config.rest_s * 2.0 ** (self._outbids - 1), self._config.rest_max_s)
        self._rest_until = now + longest_s * self._rng.random()
        return []

    def _depose(self, by: Ballot | None) -> list[RegisterEffect]:
        return [Report(Outbid(key=self.group.key, by=by)), *self._give_up()]

    def _give_up(self) -> list[RegisterEffect]:
        """Lead no more, and abandon every change."""
        uncertain, waiting = self._changes.abandon()
        self._wants_lead = self.leads = False
        self._groups.give_up()
        self._outbids = 0
        self._batch_at = inf
        self._go(Step.GIVE_UP)
        if not uncertain and not waiting:
            return []
        proposals = uncertain + waiting
        return [Report(Abandoned(key=self.group.key, proposals=proposals, uncertain=uncertain))]

    def _move_to(self, group: Group) -> None:
        """Begin anew at another group, with what is still to be done."""
        self._cut_short()
        self._groups.move_to(group)

    def _cut_short(self) -> None:
        """End the round under way; its changes wait for the next one."""
        self._changes.take_back()
        self._go(Step.MOVE)
        self._batch_at = inf

    @property
    def _needed(self) -> int:
        return majority(self.group.members)
