"""Which news go into the next message: the least told first, each told only so often.

SWIM (section 4.1) piggy-backs rumours on the failure detector's own messages, and prefers those that were
sent least. An epidemic reaches everybody with high probability when each infected peer passes a rumour on
lambda · log N times, so each is dropped after that. Everything is held by the subject: a newer rumour about a
node replaces the older one, which nobody needs any more, so the queue is bounded by the number of members.

Rumours wait in tiers by how often they were sent. Taking goes through the tiers from the lowest, and in each
from the oldest; whatever is taken moves one tier up.
"""

from __future__ import annotations

from math import ceil, log10

from membership.messages import Rumour
from membership.view import NodeId

__all__ = ["GossipQueue", "rumour_bytes", "transmissions_max"]


def transmissions_max(retransmit_mult: int, members: int) -> int:
    """Return how often each peer sends a rumour: lambda · ceil(log10(N + 1)) (SWIM 4.1, memberlist)."""
    return retransmit_mult * ceil(log10(members + 1))


def rumour_bytes(rumour: Rumour) -> int:
    """Return about how many bytes a rumour takes on the wire: its strings, and 9 bytes a number at worst."""
    member = rumour.member
    texts = len(member.id) + len(member.address) + len(member.zone)
    texts += sum(len(key) + len(value) + 4 for key, value in member.meta)
    return 64 + texts + sum(len(accuser) + 2 for accuser in rumour.accusers)


class GossipQueue:
    """The news this peer still has to tell."""

    __slots__ = ("_tier_of", "_tiers")

    def __init__(self) -> None:
        self._tiers: list[dict[NodeId, tuple[Rumour, int]]] = []
        self._tier_of: dict[NodeId, int] = {}

    def __len__(self) -> int:
        return len(self._tier_of)

    def __bool__(self) -> bool:
        return bool(self._tier_of)

    def __contains__(self, node: NodeId) -> bool:
        return node in self._tier_of

    def put(self, rumour: Rumour) -> None:
        """Add news; an older rumour about the same node is dropped."""
        node = rumour.member.id
        self.drop(node)
        self._move(node, (rumour, rumour_bytes(rumour)), 0)

    def drop(self, node: NodeId) -> None:
        """Stop telling about a node."""
        tier = self._tier_of.pop(node, None)
        if tier is not None:
            del self._tiers[tier][node]

    def take(self, bytes_max: int, transmissions: int, but: NodeId | None = None) -> tuple[Rumour, ...]:
        """Return the rumours for one message and count them as sent.

        Args:
            bytes_max: about how many bytes they may take together; one rumour is returned even if it is
                larger.
            transmissions: a rumour sent so often is dropped.
            but: leave out the rumour about this node (the message tells it anyway).
        """
        if not self._tier_of:
            return ()
        taken: list[tuple[NodeId, tuple[Rumour, int], int]] = []
        room = bytes_max
        for tier, waiting in enumerate(self._tiers):
            if room <= 0 or len(taken) == len(self._tier_of):
                break
            if waiting:
                for node, entry in waiting.items():
                    if node == but:
                        continue
                    if entry[1] > room and taken:
                        room = 0
                        break
                    room -= entry[1]
                    taken.append((node, entry, tier))
        for node, entry, tier in taken:
            del self._tiers[tier][node]
            del self._tier_of[node]
            if tier + 1 < transmissions:
                self._move(node, entry, tier + 1)
        return tuple([entry[0] for _, entry, _ in taken])

    def _move(self, node: NodeId, entry: tuple[Rumour, int], tier: int) -> None:
        while len(self._tiers) <= tier:
            self._tiers.append({})
        self._tiers[tier][node] = entry
        self._tier_of[node] = tier
