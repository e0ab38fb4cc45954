"""Naming a file: the coordinator's side of what `p2p.catalogue` explains.

    claim the name at everybody  ->  a majority grants  ->  everybody keeps the entry  ->  a majority has it
                                 ->  too few            ->  grants given back, and a try later or a refusal

A naming that is refused because somebody else just names the same ("busy") is tried again, `TRIES` times,
after pauses of random length; one whose peers are silent ends with "quorum", which says whom it waited for.
Whoever asks again after that, with the same entry, asks for the same: peers know their own grants and entries
again.

Pure.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from math import inf

from membership.view import NodeId
from p2p.catalogue import WRITE_WITHIN_S, Entry
from p2p.file_questions import ClaimName, KeepName, NameClaimed, NameKept, UnclaimName
from p2p.transport import Connection

__all__ = ["Named", "Naming", "Namings", "Told"]

ROUND_LIMIT_S = 2.0
TRIES = 5
PAUSE_S = 0.2
MAX_NAMINGS = 256

ToPeer = ClaimName | UnclaimName | KeepName


@dataclass(frozen=True, slots=True)
class Told:
    """Send this to a peer."""

    to: NodeId
    message: ToPeer


@dataclass(frozen=True, slots=True)
class Named:
    """A naming has ended: well (`reason` ""), or not."""

    client: tuple[Connection, int]
    entry: Entry
    reason: str = ""
    text: str = ""


Step = Told | Named


@dataclass(slots=True)
class Naming:
    """One under way; `is_writing` in its second phase."""

    number: int
    entry: Entry
    replaces: bool
    client: tuple[Connection, int]
    peers: tuple[NodeId, ...]
    began_at: float
    due_at: float
    tries: int = 1
    is_writing: bool = False
    is_paused: bool = False
    waiting: set[NodeId] = field(default_factory=set)
    agreed: set[NodeId] = field(default_factory=set)
    versions: int = 0
    reasons: list[str] = field(default_factory=list)

    @property
    def majority(self) -> int:
        """How many peers have to agree."""
        return len(self.peers) // 2 + 1


class Namings:
    """All that this peer coordinates.

    Args:
        rng: for the lengths of pauses.
        fresh_number: gives numbers that were not used before, by no earlier life of this peer either: what
            is still said of an earlier naming must not count for a new one.
    """

    def __init__(self, rng: random.Random, fresh_number: Callable[[], int]) -> None:
        self._rng = rng
        self._fresh_number = fresh_number
        self._open: dict[int, Naming] = {}

    def begin(
        self,
        entry: Entry,
        replaces: bool,
        client: tuple[Connection, int],
        peers: Iterable[NodeId],
        now: float,
    ) -> list[Step]:
        """Begin to name a file; `entry.file` is the put's id, and its version will be chosen here.

        Args:
            replaces: it may stand instead of another one.
            client: who is told the end of it.
            peers: all that are here.
        """
        if len(self._open) >= MAX_NAMINGS:
            return [Named(client, entry, "busy", "this peer has too many names in hand: try again")]
        for naming in self._open.values():
            if naming.entry.file == entry.file:
                naming.client = client  # it asks again, perhaps over another connection
                return []
        return self._claim(self._opened(entry, replaces, client, tuple(peers), now), now)

    def on_claimed(self, message: NameClaimed, sender: NodeId, now: float) -> list[Step]:
        """A peer has granted the name, or not."""
        naming = self._open.get(message.number)
        if naming is None or naming.is_writing or sender not in naming.waiting:
            return []
        naming.waiting.discard(sender)
        naming.versions = max(naming.versions, message.version)
        if message.reason:
            naming.reasons.append(message.reason)
        else:
            naming.agreed.add(sender)
        return self._go_on(naming, now)

    def on_kept(self, message: NameKept, sender: NodeId, now: float) -> list[Step]:
        """A peer has written the entry down, or cannot."""
        naming = self._open.get(message.number)
        if naming is None or not naming.is_writing or sender not in naming.waiting:
            return []
        naming.waiting.discard(sender)
        if message.reason:
            naming.reasons.append(message.reason)
        else:
            naming.agreed.add(sender)
        return self._go_on(naming, now)

    def peer_is_gone(self, node: NodeId, now: float) -> list[Step]:
        """Do not wait for it; it still counts among those who had to agree."""
        out: list[Step] = []
        for naming in list(self._open.values()):
            if node in naming.waiting:
                naming.waiting.discard(node)
                out += self._go_on(naming, now)
        return out

    def tick(self, peers: Iterable[NodeId], now: float) -> list[Step]:
        """End rounds that have lasted too long, begin those that have paused."""
        here = tuple(peers)
        out: list[Step] = []
        for naming in list(self._open.values()):
            if naming.due_at > now:
                continue
            if naming.is_paused:
                del self._open[naming.number]
                again = self._opened(naming.entry, naming.replaces, naming.client, here, now)
                again.tries = naming.tries + 1
                out += self._claim(again, now)
            else:
                out += self._ended_round(naming, now)
        return out

    def next_deadline(self) -> float:
        """When to be ticked again."""
        return min((naming.due_at for naming in self._open.values()), default=inf)

    # -- inside ----------------------------------------------------------------------------------------

    def _opened(
        self,
        entry: Entry,
        replaces: bool,
        client: tuple[Connection, int],
        peers: tuple[NodeId, ...],
        now: float,
    ) -> Naming:
        number = self._fresh_number()
        naming = Naming(number, entry, replaces, client, peers, now, now + ROUND_LIMIT_S)
        self._open[number] = naming
        return naming

    def _claim(self, naming: Naming, now: float) -> list[Step]:
        entry = naming.entry
        naming.waiting = set(naming.peers)
        claim = ClaimName(
            number=naming.number,
            name=entry.name,
            put=entry.file,
            replaces=naming.replaces or entry.is_removal,
        )
        if not naming.peers:
            return self._ended_round(naming, now)
        return [Told(node, claim) for node in naming.peers]

    def _go_on(self, naming: Naming, now: float) -> list[Step]:
        """End the round as soon as its end is known."""
        if len(naming.agreed) >= naming.majority and (naming.is_writing or not naming.waiting):
            return self._ended_round(naming, now)
        if "exists" in naming.reasons or not naming.waiting:
            return self._ended_round(naming, now)
        return []

    def _ended_round(self, naming: Naming, now: float) -> list[Step]:
        if naming.is_writing:
            return self._ended_writing(naming)
        if "exists" in naming.reasons:
            text = f"{naming.entry.name} exists already: choose another name, or replace it with --force"
            return self._refused(naming, "exists", text)
        if len(naming.agreed) < naming.majority:
            if "busy" in naming.reasons and naming.tries < TRIES:
                naming.is_paused = True
                naming.waiting = set()  # a grant that comes late must not count beside those given back
                naming.due_at = now + PAUSE_S * naming.tries * (0.5 + self._rng.random())
                return self._given_back(naming)
            if "busy" in naming.reasons:
                text = f"somebody else is giving the name {naming.entry.name} just now"
                return self._refused(naming, "busy", text)
            return self._refused(naming, "quorum", self._missing(naming))
        if now - naming.began_at > WRITE_WITHIN_S:  # this peer has slept: a grant may be somebody else's soon
            return self._refused(naming, "quorum", "this peer was too slow: try again")
        naming.is_writing = True
        naming.entry = replace(naming.entry, version=naming.versions + 1)
        naming.agreed = set()
        naming.waiting = set(naming.peers)
        naming.reasons = []
        naming.due_at = now + ROUND_LIMIT_S
        keep = KeepName(number=naming.number, entry=naming.entry)
        return [Told(node, keep) for node in naming.peers]

    def _ended_writing(self, naming: Naming) -> list[Step]:
        del self._open[naming.number]
        if len(naming.agreed) >= naming.majority:
            return [Named(naming.client, naming.entry)]
        if naming.reasons:
            text = f"the name cannot be written down: {naming.reasons[0]}"
            return [Named(naming.client, naming.entry, "disk", text)]
        return [Named(naming.client, naming.entry, "quorum", self._missing(naming))]

    def _missing(self, naming: Naming) -> str:
        silent = ", ".join(sorted(set(naming.peers) - naming.agreed)) or "nobody is here"
        return (
            f"no majority of the {len(naming.peers)} peers has agreed to the name {naming.entry.name} "
            f"(not heard of: {silent}): try again"
        )

    def _refused(self, naming: Naming, reason: str, text: str) -> list[Step]:
        del self._open[naming.number]
        return [*self._given_back(naming), Named(naming.client, naming.entry, reason, text)]

    def _given_back(self, naming: Naming) -> list[Step]:
        unclaim = UnclaimName(name=naming.entry.name, put=naming.entry.file)
        return [Told(node, unclaim) for node in sorted(naming.agreed)]
