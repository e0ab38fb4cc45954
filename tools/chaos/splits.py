"""Halves: the ring is cut in two in the midst of a job, and heals: `python -m tools.chaos split`.

With R = 3 and five peers everybody is in the job's group.  Two peers are cut off from the other three, in
turns with the leader among the two and among the three, and by a cut in both directions, in one, or with one
peer that still reaches both sides.  What must hold:

* while the cut lasts, a peer of the smaller side says QUORUM_LOST, and no commit is made there;
* the larger side brings the job to its end, with the right bytes and counters;
* within `AGREE_S` after healing all peers agree that all are alive, and tell the same of the job.

A cut in one direction leaves it open who is heard by whom, so nobody has to say QUORUM_LOST then.

⚙ This module starts processes and changes networks.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tools.chaos.chaos_peer import ChaosPeer, PeerWouldNotStart
from tools.chaos.naps import NapSwarm
from tools.chaos.network import links_of, network, pairs_of

__all__ = ["SHAPES", "Split", "Splits"]

SHAPES: Final = ("partition", "oneway", "bridge")
PEERS: Final = 5
REPLICAS: Final = 3
AGREE_S: Final = 10.0
NAP_S: Final = 0.5
UNDER_WAY_S: Final = 20.0
LOST_LIMIT_S: Final = 25.0
JOB_LIMIT_S: Final = 60.0
ASK_LIMIT_S: Final = 10.0
SAME_LIMIT_S: Final = 10.0


@dataclass(slots=True, kw_only=True)
class Split:
    """How one cut went.

    Attributes:
        shape: of `SHAPES`.
        leader_apart: whether the leader was among those cut off.
        lost_after_s: from the cut to the first QUORUM_LOST of the smaller side, negative if it was not said.
        took_s: from the cut to the fetched result.
        agreed_after_s: from healing to agreement, negative if there was none.
        wrong: every claim that did not hold.
    """

    shape: str
    leader_apart: bool
    lost_after_s: float = -1.0
    took_s: float = 0.0
    agreed_after_s: float = -1.0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """One line."""
        verdict = "ok" if not self.wrong else "WRONG: " + "; ".join(self.wrong)
        side = "smaller" if self.leader_apart else "larger"
        lost = f"QUORUM_LOST after {self.lost_after_s:.1f} s, " if self.lost_after_s >= 0 else ""
        return (
            f"{self.shape}, leader on the {side} side: {lost}result after {self.took_s:.1f} s, "
            f"agreement {self.agreed_after_s:.1f} s after healing: {verdict}"
        )


class Splits(NapSwarm):
    """Five peers on a network that can be cut.

    Args:
        directory: an empty one, removed at the end.
        seed: chooses who is cut off.

    Raises:
        FaultUnavailable: such a network cannot be made here.
        PeerWouldNotStart: a peer did not come up.
    """

    def __init__(self, directory: Path, *, seed: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        super().__init__(directory, network(directory, PEERS), peers=PEERS, replicas=REPLICAS, seed=seed)

    def run(self, shape: str, *, leader_apart: bool) -> Split:
        """Cut once, and heal; nothing is raised for what goes wrong."""
        split = Split(shape=shape, leader_apart=leader_apart)
        output, report = self.directory / "out", self.directory / "report.json"
        try:
            job = self._under_way(split)
            if job:
                self._cut_and_heal(split, job, output, report)
        except PeerWouldNotStart as error:
            split.wrong.append(str(error))
        finally:
            shutil.rmtree(output, ignore_errors=True)
            report.unlink(missing_ok=True)
        return split

    def _under_way(self, split: Split) -> str:
        """Submit, and wait until some tasks are committed; gives the job's id."""
        job = self.submitted(NAP_S, split.wrong, JOB_LIMIT_S)
        if not job:
            return ""
        deadline = time.monotonic() + UNDER_WAY_S
        while time.monotonic() < deadline:
            view = self.view(job)
            if view is not None and view.leader and sum(stage.done for stage in view.stages) >= 2:
                return job
            time.sleep(0.05)
        split.wrong.append(f"nothing was committed in {UNDER_WAY_S:g} s")
        return ""

    def _cut_and_heal(self, split: Split, job: str, output: Path, report: Path) -> None:
        view = self.view(job)
        leader = self.cluster.by_id(view.leader) if view is not None else None
        if leader is None:
            split.wrong.append("nobody knows who leads")
            return
        apart, others = self._sides(leader, leader_apart=split.leader_apart)
        pairs = pairs_of(split.shape, [p.number for p in apart], [p.number for p in others], self.rng)
        links = links_of(self.cluster)
        for pair in pairs:
            links.block(*pair)
        cut_at = time.monotonic()
        try:
            client = self.attach(job, output, report, [peer.address for peer in others])
            self._watch(split, job, client, apart, cut_at)
        finally:
            for pair in pairs:
                links.unblock(*pair)
        split.agreed_after_s = self.settled_after_s(AGREE_S)
        if split.agreed_after_s < 0:
            split.wrong.append(f"the peers do not agree {AGREE_S:g} s after healing")
        split.wrong += self.mistakes(output, report)
        self._compare(split, job)

    def _sides(self, leader: ChaosPeer, *, leader_apart: bool) -> tuple[list[ChaosPeer], list[ChaosPeer]]:
        rest = [peer for peer in self.cluster.peers if peer is not leader]
        self.rng.shuffle(rest)
        apart = [leader, rest[0]] if leader_apart else rest[:2]
        return apart, [peer for peer in self.cluster.peers if peer not in apart]

    def _watch(
        self, split: Split, job: str, client: subprocess.Popen[bytes], apart: list[ChaosPeer], cut_at: float
    ) -> None:
        """Ask the smaller side how the job is, until the larger one has ended it."""
        must_say = split.shape == "partition"
        while time.monotonic() - cut_at < JOB_LIMIT_S:
            if client.poll() is not None and not split.took_s:
                split.took_s = time.monotonic() - cut_at
            if must_say and split.lost_after_s < 0:
                for peer in apart:
                    if self._status(job, peer).get("condition") == "QUORUM_LOST":
                        split.lost_after_s = time.monotonic() - cut_at
            late = time.monotonic() - cut_at > LOST_LIMIT_S
            if split.took_s and (not must_say or split.lost_after_s >= 0 or late):
                break
            time.sleep(0.2)
        if client.poll() is None:
            client.kill()
            split.wrong.append(f"no result from the larger side in {JOB_LIMIT_S:g} s")
        told, _ = client.communicate()
        if client.returncode:
            split.wrong.append(f"attach ended with code {client.returncode}: {told.decode()[-300:]}")
        if must_say and split.lost_after_s < 0:
            said = {peer.number: self._status(job, peer) for peer in apart}
            split.wrong.append(f"the smaller side never said QUORUM_LOST, but {said}")

    def _status(self, job: str, peer: ChaosPeer) -> dict[str, Any]:
        """What one peer says of the job; {} if it says nothing."""
        client = self.client(["status", job, "--format", "json"], [peer.address])
        try:
            told, _ = client.communicate(timeout=ASK_LIMIT_S)
        except subprocess.TimeoutExpired:
            client.kill()
            client.communicate()
            return {}
        found: dict[str, Any] = json.loads(told) if client.returncode == 0 else {}
        return found

    def _compare(self, split: Split, job: str) -> None:
        """All peers must tell the same of the job, soon."""
        deadline = time.monotonic() + SAME_LIMIT_S
        told: set[str] = set()
        while time.monotonic() < deadline:
            said = [self._status(job, peer) for peer in self.cluster.peers]
            told = {json.dumps([one.get("state"), one.get("counters")]) for one in said}
            if len(told) == 1:
                break
        if len(told) != 1 or "COMMITTED" not in next(iter(told)):
            split.wrong.append(f"peers tell different things of the job: {sorted(told)}")
