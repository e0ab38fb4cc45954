"""The registers of one peer on its disk and on the wire: votes made durable, news passed on.

Theory
------
`membership.registers` decides; here is done what it asks for.  A vote is on disk before the answer that
promises it leaves, since effects are performed in order; what others shall do meanwhile goes out before this
peer waits for its disk.  Whose news it is follows from the key: "job/ID" is a job's record, "locks/ID" its
named locks.

*A disk that fails.*  A vote that cannot be made durable ends this life of the acceptor
(`membership.register_effects`): the peer says so and stops.  Votes that are damaged when they are read make
this peer another acceptor, which has promised nothing.

⚙ Writes votes.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, assert_never

from mapreduce.failpoints import failpoint
from membership import register_effects as reg
from membership.errors import DamagedVote
from membership.register import AcceptorId
from membership.register_config import RegisterConfig
from membership.registers import Registers
from p2p.errors import DataDirectoryUnusable
from p2p.job_keys import JOB_KEY
from p2p.job_locks import LOCK_KEY
from p2p.submissions import DISK_META
from p2p.votes import VoteStore

if TYPE_CHECKING:
    from p2p.job_service import JobService

__all__ = ["JobRegisters"]


class JobRegisters:
    """Performs what the registers want; `desk` is the service that it is a part of.

    Args:
        votes: the acceptor's, on disk.
        config: settings of registers and elections.
        now: in seconds.

    Attributes:
        registers: the machine.

    Raises:
        OSError: the votes cannot be read.
    """

    def __init__(self, desk: JobService, votes: VoteStore, config: RegisterConfig, now: float) -> None:
        self._desk = desk
        self._votes = votes
        self._forgotten = votes.forgotten()
        self.registers = self._open(config, now)

    def start(self, now: float) -> None:
        """Let others know our acceptor: another one than was said before the votes were found damaged."""
        forgotten = [key for key in self._forgotten if key.startswith(JOB_KEY)]
        self._desk.lives.were_forgotten(key.removeprefix(JOB_KEY) for key in forgotten)
        said = dict(self._desk.swim.me.meta)
        if said.get(DISK_META, self._votes.disk) != self._votes.disk:
            said[DISK_META] = self._votes.disk
            self._desk.say_of_ourselves(tuple(sorted(said.items())), now)

    def perform(self, effect: reg.RegisterEffect, now: float) -> None:
        """Do what a register wants, or pass on what it tells.

        Raises:
            DataDirectoryUnusable: a vote cannot be made durable.
        """
        desk = self._desk
        match effect:
            case reg.SendTo(to=to, message=message):
                desk.say(to, message)
            case reg.Save(key=key, state=state):
                # The others may write what they were asked for while we write.
                desk.send_early(now)
                try:
                    failpoint("vote.save")
                    self._votes.save(key, state)
                    failpoint("vote.saved")
                except OSError as error:
                    raise DataDirectoryUnusable(
                        f"a vote cannot be made durable: {error.strerror or error}; this peer stops, since "
                        "it must not promise what its disk may forget"
                    ) from error
                if key.startswith(JOB_KEY):
                    desk.lives.vote_saved(key, now)
            case reg.Report(event=event):
                self._on_event(event, now)
            case _:
                assert_never(effect)

    def _on_event(self, event: reg.RegisterEvent, now: float) -> None:
        desk = self._desk
        if _key_of(event).startswith(LOCK_KEY):
            desk.locks.on_register(event, now)
            return
        match event:
            case reg.Founded(group=group):
                desk.vetting.founded(group)
            case reg.Committed():
                self._committed(event, now)
            case reg.Abandoned(key=key, proposals=numbers):
                desk.answers.on_abandoned(key.removeprefix(JOB_KEY), numbers)
                desk.locks.naming_failed(key.removeprefix(JOB_KEY), numbers)
            case reg.Refused(key=key, proposal=number):
                desk.leading.on_register(event, now)
                desk.locks.naming_failed(key.removeprefix(JOB_KEY), (number,))
            case reg.Leads() | reg.Outbid() | reg.GroupChanged() | reg.QuorumLost() | reg.QuorumRegained():
                desk.leading.on_register(event, now)
            case reg.LeaderHeard():
                pass  # its beats tell the worker
            case _:
                assert_never(event)

    def _committed(self, event: reg.Committed, now: float) -> None:
        desk = self._desk
        if desk.leading.on_committed(event, now):
            return
        job = event.key.removeprefix(JOB_KEY)
        if not desk.locks.on_read(job, event.proposal, desk.record_in(event.record), now):
            desk.answers.on_read(job, event.proposal, desk.record_in(event.record))

    def _open(self, config: RegisterConfig, now: float) -> Registers:
        me = self._desk.swim.me

        def registers(saved: dict[str, bytes]) -> Registers:
            return Registers(
                me=AcceptorId(me.id, self._votes.disk),
                life=me.session,
                config=config,
                rng=random.Random(me.session),
                absorbs=self._desk.records.is_final,
                is_led=lambda key: key.startswith(JOB_KEY),
                now=now,
                saved=saved,
            )

        try:
            return registers(self._votes.load())
        except DamagedVote as error:
            self._desk.log(f"{error}; this peer takes part as another acceptor from here on")
            self._votes.begin_anew()
            return registers({})


def _key_of(event: reg.RegisterEvent) -> str:
    return event.group.key if isinstance(event, reg.Founded | reg.GroupChanged) else event.key
