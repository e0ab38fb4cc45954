"""Who is reached only through another peer, and through whom.

Theory
------
A link may be broken though both of its ends are well: a router forgets a route, a cable between two racks is
cut while a third rack reaches both.  SWIM holds nobody for dead whom somebody reaches (the relays of
`membership.probe` vouch for it), so everything above membership goes on to count on a peer that it cannot
talk to, and would wait for it until the link heals.

What a relay has just done for a ping it can do for any message: it reached the target and was answered, we
reached it and were answered, all over direct links.  So whoever vouched is the *detour*, one hop and never
more, and the two of these peers that matter to each other find it each for itself:

how the probe of a target ended              its detour
-------------------------------------------  ---------------------------------------------------------
the target itself answered, however late     none: the link works
only relays did                              the first of them that did
nobody did                                   none; the target is accused

It is judged at the end of the probe's period and not when a relay is quicker than the target, since a target
that was not scheduled for a moment answers both at about the same time.  A detour is asked again first, among
the relays of the next probe: where one bridge joins two halves, it keeps each side from accusing the other.
"""

from __future__ import annotations

from membership.probe import Probe
from membership.roster import Roster
from membership.view import NodeId

__all__ = ["Detours"]


class Detours:
    """The detours of one peer: at most one for each member that is probed."""

    __slots__ = ("_by_target",)

    def __init__(self) -> None:
        self._by_target: dict[NodeId, NodeId] = {}

    def to(self, target: NodeId) -> NodeId | None:
        """Return who passes messages on to a member; None: nobody needs to, or nobody can."""
        return self._by_target.get(target)

    def probed(self, probe: Probe, roster: Roster) -> None:
        """Take note of how a probe ended.

        Args:
            probe: it, at the end of its period.
            roster: all who are probed; what is known of others is forgotten.
        """
        if probe.answered_by is None or probe.answered_by == probe.target:
            self._by_target.pop(probe.target, None)
            return
        for target in [one for one in self._by_target if one not in roster]:
            del self._by_target[target]
        self._by_target[probe.target] = probe.answered_by
