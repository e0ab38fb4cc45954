"""Rot: every output that one peer holds is damaged just before it is read: `python -m tools.chaos rot`.

When the last map task of a job is committed, and the reduce tasks still sleep, all segments with map outputs
on one peer are damaged in one way; in another round, all parts of a finished job that it holds are, just
before they are fetched.  With R = 2 the other copies are whole.  What must hold: the result is right, and no
map task runs again.

⚙ This module damages files of peers, and starts processes.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tools.chaos.chaos_peer import ChaosPeer, PeerWouldNotStart
from tools.chaos.disk import damage, segments_of
from tools.chaos.naps import TASKS, NapSwarm

__all__ = ["WAYS", "Decay", "Rots"]

WAYS: Final = ("flip", "truncate", "swap", "delete")
NAP_S: Final = 0.6
MAPS_LIMIT_S: Final = 30.0
RESULT_LIMIT_S: Final = 45.0
MAP_STAGE: Final = 0


@dataclass(slots=True, kw_only=True)
class Decay:
    """How one damage went.

    Attributes:
        how: of `WAYS`.
        what: "map outputs" or "parts".
        hurt: how many segments were damaged.
        took_s: from the damage to the fetched result.
        again: committed map tasks that ran again.
        wrong: every claim that did not hold.
    """

    how: str
    what: str
    hurt: int = 0
    took_s: float = 0.0
    again: int = 0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """One line."""
        verdict = "ok" if not self.wrong else "WRONG: " + "; ".join(self.wrong)
        return f"{self.how}, {self.hurt} segments with {self.what}, {self.took_s:.1f} s: {verdict}"


class Rots(NapSwarm):
    """Four peers on loopback, R = 2.

    Args:
        directory: an empty one, removed at the end.
        seed: chooses whose segments are damaged, and where.

    Raises:
        PeerWouldNotStart: a peer did not come up.
    """

    def __init__(self, directory: Path, *, seed: int) -> None:
        super().__init__(directory, peers=4, replicas=2, seed=seed)

    def run(self, how: str, *, parts: bool) -> Decay:
        """Damage one peer's segments; nothing is raised for what goes wrong.

        Args:
            how: of `WAYS`.
            parts: damage the parts of a finished job instead of the map outputs of one that runs.
        """
        decay = Decay(how=how, what="parts" if parts else "map outputs")
        output, report = self.directory / "out", self.directory / "report.json"
        try:
            self._run(decay, output, report, parts=parts)
        except PeerWouldNotStart as error:
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
        decay.hurt = len(damage(held[number], decay.how, self.rng))
        began_at = time.monotonic()
        # Whoever is asked first: the damaged peer's own address, if parts were damaged.
        addresses = [self.cluster.peers[number].address, *self.cluster.addresses()]
        client = self.attach(job, output, report, addresses)
        told, _ = client.communicate(timeout=RESULT_LIMIT_S)
        decay.took_s = time.monotonic() - began_at
        if client.returncode:
            decay.wrong.append(f"attach ended with code {client.returncode}: {told.decode()[-300:]}")
            return
        decay.wrong += self.mistakes(output, report)
        decay.again = json.loads(report.read_text())["maps_run_again"]
        if decay.again:
            decay.wrong.append(f"{decay.again} map tasks ran again although another copy was whole")
        if decay.hurt < 2:
            decay.wrong.append("there was nothing to damage")

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
