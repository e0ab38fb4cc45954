"""Registers with one mistake each, to show that the simulator sees it.

Every class here makes one mistake that implementations of Paxos really make, by overriding as little as
possible. Nothing in the packages knows of them; ``python -m tools.simulate register --plant NAME`` and
``tests/tools/test_planted_registers.py`` run them until they are caught.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from membership.acceptor import Acceptor
from membership.phases import Phase
from membership.proposer import Proposer
from membership.register import (
    NO_BALLOT,
    AcceptorId,
    BallotSource,
    Change,
    Group,
    Record,
    majority,
    successor,
)
from membership.register_config import RegisterConfig
from membership.register_effects import Committed, RegisterEffect, Report, Save, SendTo
from membership.register_messages import (
    Accept,
    Accepted,
    Answer,
    Birth,
    Born,
    Prepare,
    Promise,
    Request,
    Unborn,
)
from membership.registers import Registers
from membership.view import NodeId
from tools.simulation.register_host import RegisterProcess

__all__ = ["PLANTS", "Plant"]


@dataclass(frozen=True, slots=True)
class Plant:
    """One mistake: its name, what it is, and the machines that make it."""

    name: str
    mistake: str
    machine: type[Registers] = Registers
    process: type[RegisterProcess] = RegisterProcess


PLANTS: dict[str, Plant] = {}


def _plant(name: str, cls: type) -> None:
    """Put a class into the table, within registers or a process of its own."""
    assert cls.__doc__ is not None
    mistake = cls.__doc__.strip()
    if issubclass(cls, RegisterProcess):
        PLANTS[name] = Plant(name, mistake, process=cls)
    elif issubclass(cls, Acceptor):
        PLANTS[name] = Plant(name, mistake, type(cls.__name__, (Registers,), {"acceptor_type": cls}))
    else:
        PLANTS[name] = Plant(name, mistake, type(cls.__name__, (Registers,), {"proposer_type": cls}))


def _planted(name: str) -> Callable[[type], type]:
    def put(cls: type) -> type:
        _plant(name, cls)
        return cls

    return put


# -- acceptors -------------------------------------------------------------------------------------------


@_planted("forgotten-promise")
class ForgottenPromise(Acceptor):
    """After a restart only what was accepted is remembered, not what was promised."""

    def __init__(
        self, me: AcceptorId, config: RegisterConfig, saved: Mapping[str, bytes] | None = None
    ) -> None:
        super().__init__(me, config, saved)
        self._votes = {key: replace(vote, promised=vote.accepted) for key, vote in self._votes.items()}


@_planted("ack-before-persist")
class AckBeforePersist(Acceptor):
    """The answer goes out before what it promises is on disk."""

    def receive(self, message: Request, sender: NodeId, now: float) -> list[RegisterEffect]:
        """See ``Acceptor``."""
        effects = super().receive(message, sender, now)
        return sorted(effects, key=lambda effect: isinstance(effect, Save))


@_planted("accept-below-promise")
class AcceptBelowPromise(Acceptor):
    """An accept is taken whatever was promised: lower ballots are not fenced."""

    def _on_accept(self, message: Accept, sender: NodeId) -> list[RegisterEffect]:
        vote = self._votes.get(message.key)
        if vote is not None:
            self._votes[message.key] = replace(vote, promised=NO_BALLOT)
        return super()._on_accept(message, sender)


@_planted("prepare-below-promise")
class PrepareBelowPromise(Acceptor):
    """A prepare is promised whatever was promised before: the latest one counts, not the highest."""

    def _on_prepare(self, message: Prepare, sender: NodeId) -> list[RegisterEffect]:
        vote = self._votes.get(message.key)
        if vote is not None:
            self._votes[message.key] = replace(vote, promised=NO_BALLOT)
        return super()._on_prepare(message, sender)


@_planted("born-again")
class BornAgain(Acceptor):
    """A birth that comes late, or twice, begins the life of an acceptor anew."""

    def _on_birth(self, message: Birth, sender: NodeId) -> list[RegisterEffect]:
        vote = self._votes.get(message.key)
        if vote is not None and vote.place == message.record.place:
            del self._votes[message.key]
        return super()._on_birth(message, sender)


@_planted("born-backwards")
class BornBackwards(Acceptor):
    """A birth of an earlier epoch brings an acceptor back to it."""

    def _on_birth(self, message: Birth, sender: NodeId) -> list[RegisterEffect]:
        vote = self._votes.get(message.key)
        if vote is not None and vote.place > message.record.place:
            del self._votes[message.key]
        return super()._on_birth(message, sender)


@_planted("silent-promise")
class SilentPromise(Acceptor):
    """A promise tells the record of the birth instead of what was accepted since."""

    def _on_prepare(self, message: Prepare, sender: NodeId) -> list[RegisterEffect]:
        out: list[RegisterEffect] = []
        for effect in super()._on_prepare(message, sender):
            if isinstance(effect, SendTo) and isinstance(effect.message, Promise):
                effect = SendTo(effect.to, replace(effect.message, accepted=NO_BALLOT))
            out.append(effect)
        return out


# -- proposers -------------------------------------------------------------------------------------------


@_planted("no-birth-rule")
class NoBirthRule(Proposer):
    """Who holds no record of an epoch votes in it all the same, for an empty register."""

    def receive(self, message: Answer | Group, now: float) -> list[RegisterEffect]:
        """See ``Proposer``."""
        if isinstance(message, Unborn):
            place, members = message.place, self.group.members
            message = Promise(
                key=message.key,
                place=place,
                ballot=self._ballot,
                acceptor=message.acceptor,
                accepted=NO_BALLOT,
                record=Record(generation=place.generation, epoch=place.epoch, members=members),
            )
        return super().receive(message, now)


@_planted("lease-read")
class LeaseRead(Proposer):
    """A leader answers reads from memory, because nobody else can lead while its lease lasts."""

    def propose(self, change: Change, now: float) -> tuple[int, list[RegisterEffect]]:
        """See ``Proposer``."""
        record, fence = self.record, self.fence
        if self.leads and record is not None and fence is not None and change(record) == record.payload:
            number = self._changes.next_number()
            known = Committed(key=self.group.key, proposal=number, record=record, fence=fence)
            return number, [Report(known)]
        return super().propose(change, now)


@_planted("lease-commit")
class LeaseCommit(Proposer):
    """A leader commits when the first acceptor has accepted, because nobody else can lead."""

    @property
    def _needed(self) -> int:
        return 1 if self.leads and self.phase is Phase.ACCEPTING else super()._needed


@_planted("own-value")
class OwnValue(Proposer):
    """A new proposer builds on what it knows itself, not on what was accepted at the highest ballot."""

    def _best_promise(self) -> Promise | None:
        best = super()._best_promise()
        if best is None or self.record is None or self.record.place != best.place or self.record.sealed:
            return best
        return replace(best, record=self.record)


@_planted("arrival-order")
class ArrivalOrder(Proposer):
    """The promise that came first is built on, not the one with the highest ballot."""

    def _best_promise(self) -> Promise | None:
        promises = (vote for vote in self._tally.votes.values() if isinstance(vote, Promise))
        return next(promises, None)


@_planted("double-count")
class DoubleCount(Proposer):
    """An answer that comes twice counts twice."""

    def _on_accepted(self, message: Accepted, now: float) -> list[RegisterEffect]:
        return super()._on_accepted(self._as_another(message), now)

    def _as_another(self, message: Accepted) -> Accepted:
        nth = len(self._tally.votes)
        return replace(message, acceptor=AcceptorId(message.acceptor.node, f"vote {nth}"))


@_planted("majority-of-the-living")
class MajorityOfTheLiving(Proposer):
    """A majority of those who seem to be alive is enough."""

    @property
    def _needed(self) -> int:
        return majority(self.group.members[len(self._quorum.told_missing) :])


@_planted("sealed-is-not-final")
class SealedIsNotFinal(Proposer):
    """Changes go on in an epoch that was sealed, by whoever has not heard of it."""

    def _accept(self, base: Record, step: object, now: float) -> list[RegisterEffect]:
        return super()._accept(replace(base, sealed_to=()), step, now)  # type: ignore[arg-type]


@_planted("early-activation")
class EarlyActivation(Proposer):
    """The next epoch is used as soon as one of its members holds the sealed record."""

    def _on_born(self, message: Born, now: float) -> list[RegisterEffect]:
        if self.phase is not Phase.FOUNDING or self._groups.is_founder or self._groups.birth is None:
            return super()._on_born(message, now)
        self.record = self._groups.birth
        self.phase = Phase.HOLDING
        self._ballot = self._ballots.above(self._highest)
        return self._go_on(now)


@_planted("copy-before-chosen")
class CopyBeforeChosen(Proposer):
    """The sealed record is copied to the next members before it is known to be chosen."""

    def _accept(self, base: Record, step: object, now: float) -> list[RegisterEffect]:
        out = super()._accept(base, step, now)  # type: ignore[arg-type]
        if self._proposed is None or not self._proposed.sealed:
            return out
        birth = successor(self._proposed)
        births = [
            SendTo(member.node, Birth(key=self.group.key, record=birth, to=member))
            for member in birth.members
        ]
        return [*births, *out]


@_planted("terminal-does-not-absorb")
class TerminalDoesNotAbsorb(Proposer):
    """A change is applied to a terminal record as to any other."""

    def _derive(self, record: Record, change: Change) -> Record:
        return super()._derive(replace(record, terminal=False), change)


@_planted("higher-without-asking")
class HigherWithoutAsking(Proposer):
    """Who is refused tries the same record at a higher ballot, without another prepare."""

    def _be_outbid(self, now: float) -> list[RegisterEffect]:
        if self.phase is not Phase.ACCEPTING:
            return super()._be_outbid(now)
        self._ballot = self._ballots.above(self._highest)
        self._promise = self._ballots.above(self._ballot)
        return self._begin_round(now)


@_planted("ballot-means-two-records")
class BallotMeansTwoRecords(Proposer):
    """What arrives while a round is under way is slipped into it, under the same ballot."""

    def _insist(self, now: float) -> list[RegisterEffect]:
        if self.phase is Phase.ACCEPTING and self._proposed is not None and not self._proposed.sealed:
            self._proposed, _ = self._changes.apply(self._proposed, self._derive)
        return super()._insist(now)


@_planted("late-promise-counts")
class LatePromiseCounts(Proposer):
    """A promise for an earlier ballot counts for the present one."""

    def _on_promise(self, message: Promise, now: float) -> list[RegisterEffect]:
        return super()._on_promise(replace(message, ballot=self._ballot), now)


# -- hosts -----------------------------------------------------------------------------------------------


@_planted("no-sync")
class NoSync(RegisterProcess):
    """Votes are written but not synced before the answer."""

    def perform(self, effect: object) -> None:
        """See ``RegisterProcess``."""
        if isinstance(effect, Save):
            self.write(effect)
        else:
            super().perform(effect)


@_planted("old-name-on-a-new-disk")
class OldNameOnNewDisk(RegisterProcess):
    """A peer that lost its disk comes back under its old acceptor id."""

    @property
    def new_disk(self) -> str:
        """See ``RegisterProcess``."""
        return "d1"


# -- nodes -----------------------------------------------------------------------------------------------


class SharedBallots(Registers):
    """Ballots do not bear the name of who made them."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._ballots = BallotSource(NodeId("anybody"), 1)


PLANTS["shared-ballots"] = Plant("shared-ballots", str(SharedBallots.__doc__), SharedBallots)
