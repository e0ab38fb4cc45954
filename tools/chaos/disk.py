"""Faults of a peer's disk: segments that are not what was written, and a disk that takes no more.

    flip        one bit in a segment is another
    truncate    a segment is shorter
    swap        two segments lie in each other's place, each whole
    delete      a segment is gone
    full        no file may grow beyond `FULL_BYTES` (RLIMIT_FSIZE), so outputs cannot be stored

A peer whose segments were hurt is no copy of them any more, though nobody knows: it weighs as one that is
down until the files that were hurt are gone, because somebody saw it or because their job is over.  `full`
leaves room for votes: a peer that cannot write those stops, by design (`failpoints` has that).

⚙ This module damages files of peers, and sets limits of their processes.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import sys
import time
from pathlib import Path
from typing import Final

from tools.chaos.chaos_peer import ChaosPeer
from tools.chaos.cluster import NO_FILE, Cluster, Mark, mark_of
from tools.chaos.faults import FaultKind, register

__all__ = ["Full", "Rot", "damage", "segments_of"]

HURT_MOST: Final = 8  # segments at a time
HEALS_IN_S: Final = 4.0
NEVER_SEEN_S: Final = 90.0  # by then results, and what nobody reads, have expired
FULL_BYTES: Final = 24 << 10
SPEC_STAGE: Final = "-1"

_TEXTS: Final = {
    "flip": "one bit of some of a peer's segments is another",
    "truncate": "some of a peer's segments are shorter",
    "swap": "a peer's segments lie in each other's place",
    "delete": "some of a peer's segments are gone",
}


def segments_of(peer: ChaosPeer) -> list[Path]:
    """Return a peer's segments with outputs, in order; specs are left alone, every peer has its own."""
    found: list[Path] = []
    with contextlib.suppress(OSError):  # a job is dropped meanwhile
        for directory in sorted(peer.segments.iterdir()):
            found += [p for p in sorted(directory.glob("*.seg")) if p.name.partition(".")[0] != SPEC_STAGE]
    return found


def damage(paths: list[Path], how: str, rng: random.Random) -> list[Path]:
    """Hurt segments; returns those that are not what they were.

    Args:
        paths: which; for `swap` they are taken in pairs.
        how: `flip`, `truncate`, `swap` or `delete`.
        rng: where to flip, how much to cut off.
    """
    hurt: list[Path] = []
    if how == "swap":
        for one, other in zip(paths[::2], paths[1::2], strict=False):
            aside = one.with_suffix(".swapped")
            with contextlib.suppress(FileNotFoundError):  # one was dropped: then nothing is swapped
                os.link(other, aside)
                os.rename(one, other)
                os.rename(aside, one)
                hurt += [one, other]
            aside.unlink(missing_ok=True)
        return hurt
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            size = path.stat().st_size
            if how == "delete":
                path.unlink()
            elif how == "truncate":
                os.truncate(path, rng.randrange(size))
            else:
                with path.open("r+b") as file:
                    place = rng.randrange(size)
                    file.seek(place)
                    (byte,) = file.read(1)
                    file.seek(place)
                    file.write(bytes([byte ^ 1 << rng.randrange(8)]))
            hurt.append(path)
    return hurt


class Rot:
    """Segments of one peer are damaged, in one way."""

    def __init__(self, how: str) -> None:
        self.name = how
        self.description = _TEXTS[how]
        self._cluster: Cluster | None = None
        self._peer: ChaosPeer | None = None
        self._hurt: list[tuple[Path, Mark]] = []
        self._until = 0.0
        self._is_over = False

    def start(self, cluster: Cluster, rng: random.Random) -> bool:
        """Damage some segments of a peer that can be spared."""
        sound = {peer.number for peer in cluster.serving()} - cluster.weighing()
        holders = [peer for peer in cluster.peers if peer.number in sound and segments_of(peer)]
        chosen = cluster.spare(1, rng.choice)
        if not chosen or not holders:
            return False
        peer = chosen[0] if chosen[0] in holders else rng.choice(holders)
        paths = segments_of(peer)
        count = min(len(paths), rng.randint(2, HURT_MOST))
        hurt = damage(rng.sample(paths, count), self.name, rng)
        if not hurt:
            return False
        self._cluster, self._peer = cluster, peer
        self._hurt = [(path, mark_of(path)) for path in hurt]
        cluster.hurt_segments.update(self._hurt)
        self._until = time.monotonic() + NEVER_SEEN_S
        cluster.burden(peer)
        cluster.journal.instant(self.name, peer.number, f"{len(hurt)} segments")
        return True

    def step(self) -> bool:
        """Look whether what was hurt still lies there."""
        if self._peer is None or self._cluster is None:
            return False
        lies = any(mark != NO_FILE and mark_of(path) == mark for path, mark in self._hurt)
        # One that was deleted is missed only when it is needed.
        is_deleted = self.name == "delete" and not self._is_over
        if (lies or is_deleted) and time.monotonic() < self._until:
            return True
        self._cluster.unburden(self._peer, heals_in_s=HEALS_IN_S)
        self._peer = None
        return False

    def stop(self) -> None:
        """Do nothing but stop waiting for a deleted one to be missed: nobody restores files."""
        self._is_over = True


class Full:
    """Files of one peer cannot grow; its children, which have limits of their own, can write."""

    name = "full"
    description = "a peer cannot store outputs: no file may grow beyond a few KiB"

    def __init__(self) -> None:
        self._limited: tuple[int, tuple[int, int]] | None = None
        self._cluster: Cluster | None = None
        self._peer: ChaosPeer | None = None

    def start(self, cluster: Cluster, rng: random.Random) -> bool:
        """Set the limit."""
        chosen = cluster.spare(1, rng.choice)
        if not chosen:
            return False
        self._cluster, self._peer = cluster, chosen[0]
        pid = self._peer.pid
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (FULL_BYTES, before[1]))
        self._limited = (pid, before)
        cluster.burden(self._peer)
        cluster.journal.instant("full", self._peer.number)
        return True

    def stop(self) -> None:
        """Take it back."""
        if self._limited is None:
            return
        pid, before = self._limited
        self._limited = None
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
        assert self._cluster is not None
        assert self._peer is not None
        self._cluster.unburden(self._peer, heals_in_s=HEALS_IN_S)


def _missing() -> str:
    return "" if sys.platform.startswith("linux") else "prlimit exists on Linux only"


for _name, _text in _TEXTS.items():
    register(
        FaultKind(
            name=_name,
            description=_text,
            make=lambda how=_name: Rot(how),  # type: ignore[misc]
            lasts_s=(2.0, 6.0),
        )
    )
register(FaultKind(name="full", description=Full.description, make=Full, missing=_missing))
