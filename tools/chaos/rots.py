"""Rot: every output that one peer holds is damaged just before it is read: `python -m tools.chaos rot`.

When the last map task of a job is committed, and the reduce tasks still sleep, all segments with map outputs
on one peer are damaged in one way; in another round, all parts of a finished job that it holds are, just
before they are fetched.  With R = 2 the other copies are whole.  What must hold: the result is right, no
map task runs again, and every damage is found.

*Found* is what the peer counts: a read met the damage, or missed the file, or scrubbing did.  What nobody
reads, as a map output whose partition is reduced elsewhere, only scrubbing can find; so the peer is told to
scrub when those that read have begun to.  There are twice as many partitions as peers with one slot each, so
that then the second half of the reduce tasks still sleeps.  What its stage's end has dropped before anybody
looked at it is counted by itself: it was needed by nobody, and it shows nothing.

⚙ This module damages files of peers, and starts processes.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from p2p.client import Client
from p2p.errors import PeerError
from p2p.key_source import KeySource
from p2p.scrub_client import scrub_all
from tools.chaos.chaos_peer import ChaosPeer, PeerWouldNotStart
from tools.chaos.cluster import NO_FILE, mark_of
from tools.chaos.disk import damage, segments_of
from tools.chaos.naps import TASKS, NapSwarm

__all__ = ["MAP_OUTPUTS", "PARTS", "WAYS", "Decay", "Rots"]

WAYS: Final = ("flip", "truncate", "swap", "delete")
PEERS: Final = 4
NAP_S: Final = 0.8
READING_AFTER_S: Final = 1.1  # the first half of the tasks has slept and reads
SCRUB_LIMIT_S: Final = 10.0
MAPS_LIMIT_S: Final = 30.0
RESULT_LIMIT_S: Final = 45.0
MAP_STAGE: Final = 0
MAP_OUTPUTS: Final = "map outputs"
PARTS: Final = "parts"


@dataclass(slots=True, kw_only=True)
class Decay:
    """How one damage went.

    Attributes:
        how: of `WAYS`.
        what: `MAP_OUTPUTS` or `PARTS`.
        hurt: how many segments were damaged.
        found: how many of them the peer has found damaged.
        lying: how many still lie there as they were damaged, and nobody knows.
        took_s: from the damage to the fetched result.
        again: committed map tasks that ran again.
        wrong: every claim that did not hold.
    """

    how: str
    what: str
    hurt: int = 0
    found: int = 0
    lying: int = 0
    took_s: float = 0.0
    again: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def dropped(self) -> int:
        """How many were dropped with their stage before anybody read them."""
        return max(0, self.hurt - self.found - self.lying)

    def judge(self) -> None:
        """Say what is wrong with the numbers."""
        if self.again:
            self.wrong.append(f"{self.again} map tasks ran again although another copy was whole")
        if self.hurt < 2:
            self.wrong.append("there was nothing to damage")
        if self.lying:
            self.wrong.append(f"{self.lying} damaged segments were never found")
        if self.dropped and self.what == PARTS:
            self.wrong.append(f"{self.dropped} damaged parts are neither found nor there")
        if self.found > self.hurt:
            self.wrong.append(f"{self.found - self.hurt} sound segments were taken for damaged ones")

    def __str__(self) -> str:
        """One line."""
        verdict = "ok" if not self.wrong else "WRONG: " + "; ".join(self.wrong)
        found = f"found {self.found}" + (f", dropped unread {self.dropped}" if self.dropped else "")
        return f"{self.how}, {self.hurt} segments with {self.what}, {found}, {self.took_s:.1f} s: {verdict}"


class Rots(NapSwarm):
    """Four peers on loopback, R = 2.

    Args:
        directory: an empty one, removed at the end.
        seed: chooses whose segments are damaged, and where.

    Raises:
        PeerWouldNotStart: a peer did not come up.
    """

    def __init__(self, directory: Path, *, seed: int) -> None:
        super().__init__(directory, peers=PEERS, replicas=2, seed=seed, partitions=2 * PEERS)

    def run(self, how: str, *, parts: bool) -> Decay:
        """Damage one peer's segments; nothing is raised for what goes wrong.

        Args:
            how: of `WAYS`.
            parts: damage the parts of a finished job instead of the map outputs of one that runs.
        """
        decay = Decay(how=how, what=PARTS if parts else MAP_OUTPUTS)
        output, report = self.directory / "out", self.directory / "report.json"
        try:
            self._run(decay, output, report, parts=parts)
        except (PeerWouldNotStart, PeerError) as error:
            decay.wrong.append(str(error))
        finally:
            shutil.rmtree(output, ignore_errors=True)
            report.unlink(missing_ok=True)
        return decay

    def _run(self, decay: Decay, output: Path, report: Path, *, parts: bool) -> None:
        job = self.submitted(NAP_S, decay.wrong, RESULT_LIMIT_S)
        if not job:
            return
        if not self._reached(job, parts=parts):
            decay.wrong.append(f"it did not come so far in {MAPS_LIMIT_S:g} s")
            return
        held = {peer.number: self._held(peer, job, parts=parts) for peer in self.cluster.peers}
        number = self.rng.choice([number for number, paths in held.items() if len(paths) > 1])
        peer = self.cluster.peers[number]
        known = self._found_by(peer)
        hurt = {path: mark_of(path) for path in damage(held[number], decay.how, self.rng)}
        decay.hurt = len(hurt)
        began_at = time.monotonic()
        # Whoever is asked first: the damaged peer's own address, if parts were damaged.
        addresses = [peer.address, *self.cluster.addresses()]
        client = self.attach(job, output, report, addresses)
        if not parts:
            time.sleep(max(0.0, began_at + READING_AFTER_S - time.monotonic()))
            self._scrub(peer)
        told, _ = client.communicate(timeout=RESULT_LIMIT_S)
        decay.took_s = time.monotonic() - began_at
        if parts:
            self._scrub(peer)
        decay.found = self._found_by(peer) - known
        decay.lying = sum(mark != NO_FILE and mark_of(path) == mark for path, mark in hurt.items())
        if client.returncode:
            decay.wrong.append(f"attach ended with code {client.returncode}: {told.decode()[-300:]}")
            return
        decay.wrong += self.mistakes(output, report)
        decay.again = json.loads(report.read_text())["maps_run_again"]
        decay.judge()

    def _found_by(self, peer: ChaosPeer) -> int:
        """How many damaged segments a peer has found since its start."""
        answer = self.cluster.members(peer)
        if answer is None:
            raise PeerWouldNotStart(f"peer {peer.number} does not answer")
        return answer.counters["damaged_segments"]

    def _scrub(self, peer: ChaosPeer) -> None:
        """Have a peer read through all that it holds."""
        keys = KeySource(directory=self.cluster.keys).load().keys
        with Client(keys, (peer.address,), timeout_s=SCRUB_LIMIT_S) as client:
            scrub_all(client)

    def _reached(self, job: str, *, parts: bool) -> bool:
        """Wait until all maps are committed, or the job is over."""
        deadline = time.monotonic() + MAPS_LIMIT_S
        while time.monotonic() < deadline:
            view = self.view(job)
            if view is not None and parts and view.state.is_final:
                return True
            if view is not None and not parts and view.stages and view.stages[0].done >= TASKS:
                return True
            time.sleep(0.02)
        return False

    def _held(self, peer: ChaosPeer, job: str, *, parts: bool) -> list[Path]:
        paths = [path for path in segments_of(peer) if path.parent.name == job]
        return [path for path in paths if (path.name.partition(".")[0] == str(MAP_STAGE)) is not parts]
