"""Zombies, which wake when others have gone on, with a write in their hands: `python -m tools.chaos zombies`.

A job runs on five peers with R = 2, so three of them keep its record.  When its first tasks are committed,
one process is stopped (SIGSTOP) at a named moment: its leader about to propose, to send a proposal to an
acceptor, to grant, to settle; a worker about to report, or to send bytes; an acceptor whose vote is on disk
and whose answer is not sent.  It sleeps until its successor has committed: another leader further tasks, or,
where it led nothing, the others all tasks of the stage.  Then it wakes (SIGCONT) and does what it was about
to do.

All the while the votes on the disks of all acceptors are read (`tools.chaos.ledger`).  What must hold:

* no stale write: nothing that the zombie had in its hands changes what was agreed since;
* its job's result, fetched through the zombie itself, is right, with exact counters, and no map ran again;
* soon all peers see each other, and the zombie tells what the others tell.

⚙ This module stops processes, and reads their files.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mapreduce.record import JobRecord
from membership.acceptor import decode_vote
from membership.errors import DamagedVote
from membership.register import AcceptorId
from membership.view import NodeId
from p2p.job_keys import JOB_KEY
from p2p.job_protocol import unpack_record
from p2p.votes import DISK_FILE, ENDING
from tools.chaos.chaos_peer import ChaosPeer, PeerWouldNotStart
from tools.chaos.failpoints import ArmedLoopback
from tools.chaos.ledger import Ledger
from tools.chaos.naps import NapSwarm

__all__ = ["MOMENTS", "Awakening", "Zombies"]

MOMENTS: Final = (
    *("commit.propose", "commit.accept", "commit.chosen", "grant.send", "settled.send", "finished.heard"),
    *("task.done", "push.chunk", "finished.send", "vote.saved"),
)
"""Where it is stopped, each time with something in its hands; all come many times in a job."""

PEERS: Final = 5
REPLICAS: Final = 2
NAP_S: Final = 0.4
LOOK_EVERY_S: Final = 0.01
BEGUN_LIMIT_S: Final = 20.0
FIRE_LIMIT_S: Final = 10.0
SUCCESSOR_LIMIT_S: Final = 40.0
END_LIMIT_S: Final = 40.0
AWAKE_S: Final = 3.0  # so long the votes are read after it woke, whatever else happens
RESULT_LIMIT_S: Final = 30.0
AGREE_S: Final = 10.0


@dataclass(slots=True, kw_only=True)
class Awakening:
    """How one zombie fared.

    Attributes:
        moment: of `MOMENTS`; hit: it was stopped when a process came there for the so-manieth time.
        who: the peer, and whether it led the job.
        slept_s: until its successor had committed.
        seen: chosen records that were seen, of which `since` after it woke or while it slept.
        stale: every stale write.
        wrong: every claim that did not hold, stale writes among them.
    """

    moment: str
    hit: int
    who: str = "nobody"
    led: bool = False
    slept_s: float = 0.0
    seen: int = 0
    since: int = 0
    stale: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """One line."""
        verdict = "ok" if not self.wrong else "WRONG: " + "; ".join(self.wrong)
        role = "leader" if self.led else "no leader"
        return (
            f"{self.moment}@{self.hit} in {self.who} ({role}), slept {self.slept_s:.1f} s, {self.since} of "
            f"{self.seen} records seen since, {len(self.stale)} stale: {verdict}"
        )


class Zombies(NapSwarm):
    """Peers of which one at a time is stopped and wakes too late.  Use it as a context manager.

    Args:
        directory: an empty one, removed at the end.
        seed: chooses which arrival at a moment is hurt.

    Raises:
        PeerWouldNotStart: a peer did not come up.
    """

    def __init__(self, directory: Path, *, seed: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._armed = directory / "armed"
        super().__init__(directory, ArmedLoopback(self._armed), peers=PEERS, replicas=REPLICAS, seed=seed)

    def run(self, moment: str) -> Awakening:
        """Have one zombie; nothing is raised for what goes wrong."""
        one = Awakening(moment=moment, hit=self.rng.randint(1, 3))
        output, report = self.directory / "out", self.directory / "report.json"
        ledger = Ledger(unpack_record)
        zombie: ChaosPeer | None = None
        try:
            job = self.submitted(NAP_S, one.wrong, RESULT_LIMIT_S)
            if job and self._begun(one, job, ledger):
                zombie = self._stopped(one, job, ledger)
            if zombie is not None:
                self._wake_when_replaced(one, job, ledger, zombie)
                self._look_at_the_end(one, job, zombie, output, report)
        except PeerWouldNotStart as error:
            one.wrong.append(str(error))
        finally:
            self._armed.unlink(missing_ok=True)
            if zombie is not None:
                self._continue(zombie)
            shutil.rmtree(output, ignore_errors=True)
            report.unlink(missing_ok=True)
        return one

    # ---- one zombie ------------------------------------------------------------------------------------

    def _begun(self, one: Awakening, job: str, ledger: Ledger) -> bool:
        """Wait until some tasks are committed."""
        for _ in self._looks(job, ledger, BEGUN_LIMIT_S):
            if ledger.newest is not None and _done(ledger.newest) >= 1:
                return True
        one.wrong.append(f"nothing was committed in {BEGUN_LIMIT_S:g} s")
        return False

    def _stopped(self, one: Awakening, job: str, ledger: Ledger) -> ChaosPeer | None:
        """Have a process stopped at the moment; returns which, None if it never came."""
        fired = Path(f"{self._armed}.fired")
        fired.unlink(missing_ok=True)
        beside = self._armed.with_suffix(".new")
        beside.write_text(f"{one.moment}=stop@{one.hit}")
        beside.rename(self._armed)
        for _ in self._looks(job, ledger, FIRE_LIMIT_S):
            with contextlib.suppress(FileNotFoundError, ValueError):
                pid = int(fired.read_text().split()[0])
                zombie = next(peer for peer in self.cluster.peers if peer.pid == pid)
                assert ledger.newest is not None
                one.who, one.led = f"peer {zombie.number}", ledger.newest.leader == zombie.id
                return zombie
        one.wrong.append(f"nobody came there in {FIRE_LIMIT_S:g} s")
        return None

    def _wake_when_replaced(self, one: Awakening, job: str, ledger: Ledger, zombie: ChaosPeer) -> None:
        before = ledger.newest
        assert before is not None
        began_at, known = time.monotonic(), len(ledger.chosen)
        taken_over: JobRecord | None = None
        for _ in self._looks(job, ledger, SUCCESSOR_LIMIT_S):
            now = ledger.newest
            assert now is not None
            if now.ballot > before.ballot and taken_over is None:
                taken_over = now
            led_on = taken_over is not None and _done(now) > _done(taken_over)
            if now.status.is_final or (led_on if one.led else now.stage > before.stage):
                break
        else:
            one.wrong.append(f"nobody went on in its stead in {SUCCESSOR_LIMIT_S:g} s")
        one.slept_s = time.monotonic() - began_at
        self._continue(zombie)
        awake_at = time.monotonic()
        for _ in self._looks(job, ledger, END_LIMIT_S):
            is_over = ledger.newest is not None and ledger.newest.status.is_final
            if is_over and time.monotonic() - awake_at > AWAKE_S:
                break
        else:
            one.wrong.append(f"the job was not over {END_LIMIT_S:g} s after it woke")
        one.seen, one.since = len(ledger.chosen), len(ledger.chosen) - known
        one.stale = ledger.stale()
        one.wrong += (f"stale write: {what}" for what in one.stale)

    def _look_at_the_end(
        self, one: Awakening, job: str, zombie: ChaosPeer, output: Path, report: Path
    ) -> None:
        if self.settled_after_s(AGREE_S) < 0:
            one.wrong.append(f"the peers do not agree {AGREE_S:g} s later that all are alive")
        client = self.attach(job, output, report, [zombie.address, *self.cluster.addresses()])
        told, _ = client.communicate(timeout=RESULT_LIMIT_S)
        if client.returncode:
            one.wrong.append(f"attach ended with code {client.returncode}: {told.decode()[-300:]}")
            return
        one.wrong += self.mistakes(output, report)
        again = json.loads(report.read_text())["maps_run_again"]
        if again:
            one.wrong.append(f"{again} map tasks ran again")

    def _continue(self, zombie: ChaosPeer) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(zombie.pid, signal.SIGCONT)

    # ---- looking ---------------------------------------------------------------------------------------

    def _looks(self, job: str, ledger: Ledger, limit_s: float) -> Iterator[None]:
        """Look at all votes again and again, for so long at the most."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            for peer in self.cluster.peers:
                _read_votes(peer, job, ledger)
            yield
            time.sleep(LOOK_EVERY_S)


def _done(record: JobRecord) -> int:
    """How many tasks have their winner, in all stages."""
    return sum(stage.done for stage in record.stages)


def _read_votes(peer: ChaosPeer, job: str, ledger: Ledger) -> None:
    """Show the ledger what a peer's acceptor has on its disk of a job."""
    directory = peer.data / "votes"
    with contextlib.suppress(FileNotFoundError):  # a vote goes when a later group's name comes, or for good
        disk = (directory / DISK_FILE).read_text().strip()
        for path in sorted(directory.glob(f"*{ENDING}")):
            key, _, state = path.read_bytes().partition(b"\n")
            if key == f"{JOB_KEY}{job}".encode():
                with contextlib.suppress(DamagedVote):
                    ledger.see(AcceptorId(NodeId(peer.id), disk), decode_vote(state))
