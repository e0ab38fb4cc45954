"""One request to all members of a group, and who has said what to it.

A round of a proposer is one such request. Each acceptor's answer is kept once, under its name, so neither the
order nor the number of answers matters. Who is unborn has no vote, but can be helped to get one (see
`membership.proposer`).
"""

from __future__ import annotations

from collections.abc import Sequence

from membership.register import NO_BALLOT, AcceptorId, Ballot, Group
from membership.register_effects import SendTo
from membership.register_messages import Accept, Accepted, Birth, Born, Promise, Unborn

__all__ = ["Tally"]


class Tally:
    """The answers to one round.

    Args:
        members: who is asked.
        now: when the round began, in seconds.
        interval_s: when to ask again; twice as long after each time ...
        interval_max_s: ... up to this.

    Attributes:
        began_s: when the round began.
        resend_at: when those who have not voted are asked again.
        votes: the answer that counts, by acceptor.
        refusals: what those who refused have promised to somebody else.
        earlier: the latest group that an unborn acceptor knows of.
    """

    __slots__ = (
        "_interval_max_s",
        "_interval_s",
        "_members",
        "_unborn",
        "began_s",
        "earlier",
        "refusals",
        "resend_at",
        "votes",
    )

    def __init__(
        self, members: Sequence[AcceptorId], now: float, *, interval_s: float, interval_max_s: float
    ) -> None:
        self.began_s = now
        self.resend_at = now + interval_s
        self.votes: dict[AcceptorId, Promise | Accepted | Born] = {}
        self.refusals: dict[AcceptorId, Ballot] = {}
        self.earlier: Group | None = None
        self._unborn: dict[AcceptorId, bool] = {}  # whether it was sent help
        self._members = tuple(members)
        self._interval_s = interval_s
        self._interval_max_s = interval_max_s

    def postpone(self, now: float) -> None:
        """The request is sent again at `now` (seconds); the next time is later."""
        self._interval_s = min(2 * self._interval_s, self._interval_max_s)
        self.resend_at = now + self._interval_s

    @property
    def missing(self) -> tuple[AcceptorId, ...]:
        """Those without a vote so far, in order."""
        return tuple(member for member in self._members if member not in self.votes)

    def best_promise(self) -> Promise | None:
        """Return the promise of whoever accepted at the highest ballot."""
        promises = [vote for vote in self.votes.values() if isinstance(vote, Promise)]
        return max(promises, key=lambda promise: promise.accepted, default=None)

    # ------------------------------------------------------------------ the unborn

    def is_unborn(self, message: Unborn) -> None:
        """An acceptor says that it holds no record."""
        self._unborn[message.acceptor] = False
        earlier = message.earlier
        if earlier is not None and (self.earlier is None or self.earlier.place < earlier.place):
            self.earlier = earlier

    @property
    def all_unborn(self) -> bool:
        """Whether some answered, and none of them was born."""
        return bool(self._unborn) and not self.votes

    def is_born(self, acceptor: AcceptorId) -> bool:
        """An acceptor holds a record now; return whether that is our help's doing."""
        return self._unborn.pop(acceptor, False)

    def help_the_unborn(self) -> list[SendTo]:
        """Show the unborn what another acceptor was born with, or accepted, as soon as one has told us."""
        best = self.best_promise()
        if best is None:
            return []
        out: list[SendTo] = []
        key, accepted, record = best.key, best.accepted, best.record
        for one in [one for one, is_helped in self._unborn.items() if not is_helped]:
            self._unborn[one] = True
            help_: Birth | Accept
            if accepted == NO_BALLOT:
                help_ = Birth(key=key, record=record, to=one)
            else:
                help_ = Accept(key=key, ballot=accepted, promise=accepted, record=record, to=one)
            out.append(SendTo(one.node, help_))
        return out
